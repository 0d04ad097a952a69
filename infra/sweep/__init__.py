"""Sweeps: a grid of pretraining runs with locks and settings pinned, run here, under SLURM or on Ray."""
