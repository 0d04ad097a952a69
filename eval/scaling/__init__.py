"""Power laws over data and model size, what explains their slopes, and their figures."""
