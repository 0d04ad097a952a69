"""Samples read out of shards, from local disks and from object storage."""
