"""The demo: the whole pipeline on real images that ship with ordinary Python packages."""
