"""Checkpoints of a run: asynchronous, atomic, with checksums, readable by any number of ranks.

    <run>/checkpoints/step-00001000/
        __0_0.distcp ...    tensors, one file or more per rank, written by `torch.distributed.checkpoint`
        .metadata           JSON: which tensor lies where (see `tensors`)
        meta.json           step, stream position, digest, recipe, code version, checksums of all files (see `record`)

`folder` saves, finds and loads them; `mirror` keeps a copy on object storage; `lease` lets one process at a time write
into a run's folder; `compare` says whether a run may go on from a checkpoint, and what its settings changed.
"""

from __future__ import annotations

from train.checkpoint.compare import check_resumable, check_samples, code_version, setting_changes
from train.checkpoint.folder import Checkpoints
from train.checkpoint.lease import Lease, hold_folder
from train.checkpoint.record import Checkpoint

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Lease",
    "check_resumable",
    "check_samples",
    "code_version",
    "hold_folder",
    "setting_changes",
]
