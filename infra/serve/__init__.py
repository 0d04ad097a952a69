"""A dataset in the browser."""
