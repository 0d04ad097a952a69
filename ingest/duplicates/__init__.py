"""Exact and near duplicates, copies of volumes, and overlap with evaluation sets."""
