"""A small model with its checkpoints, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from train.checkpoint import Checkpoint, Checkpoints
from train.recipe import CheckpointConfig


def trained(steps: int = 1) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model after some steps, its optimiser holding moments."""
    torch.manual_seed(steps)
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def described(step: int, **changes: Any) -> Checkpoint:
    settings: dict[str, Any] = {"stream": {"epoch": 0, "batch": step}, "digest": "sha256:x", "recipe": {"name": "a"}}
    return Checkpoint(step=step, code_version="1", world_size=1, **{**settings, **changes})


def saved(folder: Path, *steps: int, **config: Any) -> Checkpoints:
    """Checkpoints of some steps, all written."""
    checkpoints = Checkpoints(folder, CheckpointConfig(**config))
    for step in steps:
        checkpoints.save(described(step), *trained(step))
        checkpoints.wait()
    return checkpoints
