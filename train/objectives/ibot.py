"""iBOT: the student predicts the teacher's assignment of the patches that the student did not see.

Zhou et al. 2021 (arXiv 2111.07832), in the form of DINOv2.
"""

from __future__ import annotations

from torch import Tensor

from shards.decode.kernels.choice import KernelName
from train.objectives.cross_entropy import cross_entropy

__all__ = ["ibot_loss", "mask_weights"]


def mask_weights(masks: Tensor, rows: Tensor | None = None) -> Tensor:
    """`(M,)` float32: for each masked patch, one over the number of masked patches of its crop.

    Args:
        masks: `(crops, patches)` bool; the M masked patches in row order.
        rows: `(M,)` int64, their places in the flattened masks; without them the host waits until they are counted.
    """
    if rows is None:
        rows = masks.flatten().nonzero().squeeze(-1)
    per_crop = 1.0 / masks.sum(-1).clamp_min(1).float()
    return per_crop.index_select(0, rows // masks.shape[-1])


def ibot_loss(
    student_masked: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    num_crops: int,
    temperature: float,
    by: KernelName = "torch",
) -> Tensor:
    """Weighted cross-entropy over masked patches, divided by ALL crops, the unmasked ones too; float32.

    Args:
        student_masked: `(M, K)` logits of the masked patches.
        targets: `(M, K)` the teacher's probabilities.
        weights: `(M,)` from `mask_weights`.
        num_crops: Crops in the batch, masked or not.
        temperature: The student's.
        by: What computes it.
    """
    losses = cross_entropy(student_masked, targets, temperature=temperature, by=by)
    return (losses * weights).sum() / num_crops
