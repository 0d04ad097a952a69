"""AdamW with a group for each pair of multipliers, clipping by module, the teacher's moving average."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from train.recipe import OptimConfig
from train.schedules import StepValues

__all__ = [
    "Multipliers",
    "build_optimizer",
    "clip_each",
    "constants",
    "decay_matrices_only",
    "layer_decay_multipliers",
    "move_average",
    "set_step_values",
]

_BLOCK = re.compile(r"(?:^|\.)blocks\.(?:\d+\.)?(\d+)\.(?=[a-z])")
_EMBEDDINGS = ("pos_embed", "patch_embed", "mask_token", "cls_token", "reg_token", "register_tokens")


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Factors on the schedules' values, for one parameter.

    Attributes:
        lr: On the learning rate.
        weight_decay: On the weight decay; 0 excludes the parameter.
        last_layer: Follows the last layer's learning rate (frozen at the start).
    """

    lr: float = 1.0
    weight_decay: float = 1.0
    last_layer: bool = False


def layer_decay_multipliers(name: str, *, depth: int, decay: float, patch_embed: float) -> Multipliers:
    """DINOv2's rule for a backbone parameter (dinov2, utils/param_groups.py).

    Embeddings are layer 0, block i is layer i + 1, the final norm is layer depth + 1; from the top, the learning rate
    falls by `decay` a layer. Biases, norms and LayerScale are not decayed; tokens and positions are.

    Args:
        name: Of the parameter, in the backbone; chunked names (`blocks.0.3.`) count by their last number.
        depth: Blocks.
        decay: Factor a layer.
        patch_embed: Extra factor on the patch embedding.
    """
    block = _BLOCK.search(name)
    layer = depth + 1
    if any(part in name for part in _EMBEDDINGS):
        layer = 0
    elif block:
        layer = int(block.group(1)) + 1
    lr = decay ** (depth + 1 - layer) * (patch_embed if "patch_embed" in name else 1.0)
    exempt = name.endswith(".bias") or "norm" in name or "gamma" in name
    return Multipliers(lr=lr, weight_decay=0.0 if exempt else 1.0)


def decay_matrices_only(name: str, num_dimensions: int) -> Multipliers:
    """MAE's rule: biases and one-dimensional parameters are not decayed."""
    return Multipliers(weight_decay=0.0 if num_dimensions <= 1 or name.endswith(".bias") else 1.0)


def build_optimizer(network: nn.Module, rule: Callable[[str], Multipliers], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, one group for each distinct set of multipliers."""
    groups: dict[Multipliers, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(rule(name), []).append(parameter)
    settings = [{"params": parameters, "multipliers": key} for key, parameters in groups.items()]
    optimizer = torch.optim.AdamW(settings, lr=0.0, betas=config.betas, eps=1e-8, weight_decay=0.0, fused=True)
    for parameters in groups.values():
        for parameter in parameters:
            optimizer.state[parameter] = _fresh_state(parameter)
    return optimizer


def _fresh_state(parameter: nn.Parameter) -> dict[str, Tensor]:
    """AdamW's state before the first step: made now, so that a checkpoint has somewhere to be loaded."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter, requires_grad=False),
        "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
    }


def set_step_values(optimizer: torch.optim.Optimizer, values: StepValues) -> None:
    """Give every group its learning rate and weight decay for this step."""
    for group in optimizer.param_groups:
        multipliers: Multipliers = group["multipliers"]
        base = values.last_layer_lr if multipliers.last_layer else values.lr
        group["lr"] = base * multipliers.lr
        group["weight_decay"] = values.weight_decay * multipliers.weight_decay


def clip_each(modules: Mapping[str, nn.Module], max_norm: float | None) -> dict[str, Tensor]:
    """Scale each module's gradients to `max_norm` at most.

    Returns:
        Each module's norm before clipping, a float32 scalar; over all ranks where parameters are sharded.
    """
    norms = {}
    for name, module in modules.items():
        parameters = [p for p in module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norms[name] = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if max_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norms


@torch.no_grad()
def move_average(
    teacher: Iterable[nn.Parameter], student: Iterable[nn.Parameter], *, momentum: float, skip: Tensor | None = None
) -> None:
    """`teacher = momentum * teacher + (1 - momentum) * student` in place, of all parameters at once.

    Args:
        teacher: Parameters that move.
        student: As many, of the same shapes.
        momentum: Share of the teacher that stays.
        skip: Scalar on the device; 1 leaves the teacher as it is, without the host's knowledge. None for 0.
    """
    old, new = [_local(p) for p in teacher], [_local(p) for p in student]
    if skip is None:
        torch._foreach_lerp_(old, new, 1 - momentum)
        return
    weight = (1 - skip) * (1 - momentum)
    torch._foreach_lerp_(old, new, [weight] * len(old))


def constants(values: Iterable[float], *, like: Tensor) -> Tensor:
    """A vector of a few numbers of the host, made on the device of `like` without a copy for which the host waits."""
    return torch.stack([like.new_full((), value) for value in values])


def _local(parameter: nn.Parameter) -> Tensor:
    """This rank's part of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
