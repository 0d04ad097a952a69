"""Whole pictures brought to other sizes and to gray."""
