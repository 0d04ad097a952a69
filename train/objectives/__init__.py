"""The objectives, one formula a file, each written from its publication and pinned by numbers of the reference code."""
