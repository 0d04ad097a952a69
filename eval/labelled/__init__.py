"""Probes on images of the user's own: labels from a table, images from a lock, splits that keep groups together."""
