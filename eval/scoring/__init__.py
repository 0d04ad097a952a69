"""Metrics of a classification task and their intervals."""
