"""The objectives, one formula per file, each written from its publication and pinned by numbers of the reference code."""
