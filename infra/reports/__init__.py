"""The page of a dataset and of what was trained on it."""
