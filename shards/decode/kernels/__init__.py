"""Crops of a whole batch on a device, by one Triton kernel a group or by torch.

Read in this order: `choice` (which of the two, decided once), `table` (what both are given), `cut` (torch, the
reference), `triton_crop` (the kernel).
"""
