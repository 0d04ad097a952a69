"""One script a contestant; each runs in its own environment and needs nothing of ours but `harness`."""
