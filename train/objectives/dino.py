"""DINO: the student's crop predicts the teacher's assignment of another crop to prototypes.

Caron et al. 2021 (arXiv 2104.14294), in the form of DINOv2 (Oquab et al. 2023, arXiv 2304.07193).
Logits are `(rows, K)`, rows crop-major: row = crop * batch + image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shards.decode.kernels.choice import KernelName
from train.objectives.cross_entropy import cross_entropy

__all__ = ["DinoLosses", "dino_losses", "swap_crops"]


@dataclass(frozen=True, slots=True)
class DinoLosses:
    """The two parts of the loss, each divided by the number of all (student, teacher) pairs.

    Attributes:
        local: Every local crop against both teacher crops.
        global_: Each global crop against the teacher of the other.
    """

    local: Tensor
    global_: Tensor


def swap_crops(teacher: Tensor) -> Tensor:
    """Exchange the two halves of `(2 * batch, K)`, so that crop A meets the teacher of crop B."""
    first, second = teacher.chunk(2)
    return torch.cat([second, first])


def dino_losses(
    student_global: Tensor,
    student_local: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    by: KernelName = "torch",
) -> DinoLosses:
    """DINO's cross-entropies, in float32.

    Args:
        student_global: `(2 * batch, K)` logits.
        student_local: `(num_local * batch, K)` logits; may be empty.
        targets: `(2 * batch, K)` the teacher's probabilities for the global crops, swapped: the rows of crop B first.
        temperature: The student's.
        by: What computes it.
    """
    batch = len(targets) // 2
    num_local = len(student_local) // batch
    num_terms = 2 + 2 * num_local
    global_mean = cross_entropy(student_global, targets, temperature=temperature, by=by).mean()
    # every local crop meets both teacher crops; cross-entropy is linear in the targets, so these may be added first
    both_teachers = targets.view(2, batch, -1).sum(0)
    local_mean = cross_entropy(student_local, both_teachers, temperature=temperature, by=by).sum() / batch
    return DinoLosses(local=local_mean / num_terms, global_=2 * global_mean / num_terms)
