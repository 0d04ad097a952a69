"""Measurements that back what the documentation says, as runnable code."""
