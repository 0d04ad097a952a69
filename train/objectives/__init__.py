"""The objectives, one formula per file, written from its publication and pinned by numbers of the reference code."""
