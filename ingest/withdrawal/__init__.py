"""Samples taken out of a dataset for good: which they are, the steps of a withdrawal, and the purge of their bytes."""
