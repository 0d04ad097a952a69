"""Subsets of a dataset: locks, copies, data lists."""
