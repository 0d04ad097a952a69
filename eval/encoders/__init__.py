"""Frozen networks whose features are probed: our exports, timm and foreign weights."""
