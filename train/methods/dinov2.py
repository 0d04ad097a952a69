"""DINOv2: an EMA teacher sees whole crops, the student sees local crops and masked global crops."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from train.augment import augment, blur_chances, draw_augmentation
from train.backbone import Backbone, DropPathRows, build_backbone, rows_to_keep
from train.bf16 import Bf16Copy
from train.compiling import compile_parts
from train.methods.base import Method, StepLosses
from train.objectives.dino import dino_losses, swap_crops
from train.objectives.heads import PrototypeHead
from train.objectives.ibot import ibot_loss, mask_weights
from train.objectives.koleo import koleo_loss
from train.objectives.masks import batch_masks
from train.objectives.targets import EmaCenter, Sinkhorn
from train.optim import Multipliers, layer_decay_multipliers, move_average
from train.randomness import Purpose, Share, part_of, to_device
from train.recipe import DinoConfig, Recipe
from train.schedules import StepValues
from train.start import load_start_weights

__all__ = ["DinoInputs", "DinoNetwork", "DinoOutputs", "DinoV2"]

_Function = TypeVar("_Function")
_GROUPS = ("global/", "local/")
_AUGMENT = (Purpose.AUGMENT_GLOBAL, Purpose.AUGMENT_LOCAL)
"""Of the two groups of crops: the prefix of what is drawn for each, and the sequence that it is drawn from."""


class DinoOutputs(NamedTuple):
    """What a network gives for a batch, over K prototypes; whole tensors, since FSDP dislikes views.

    Attributes:
        cls: `(2 * batch, D)` CLS tokens of the global crops.
        logits: `(rows, K)` of the DINO head: global crops, local crops, then masked patches where they share the head.
        patch_logits: `(M, K')` of the iBOT head where it is another one.
    """

    cls: Tensor
    logits: Tensor
    patch_logits: Tensor | None

    def split(self, num_masked: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of global crops, local crops (none for the teacher) and masked patches."""
        # this has a gradient of its own, one concatenation; slices would each write a whole one and add them up
        num_global, rows = len(self.cls), len(self.logits)
        if self.patch_logits is not None:
            first, last = self.logits.split_with_sizes([num_global, rows - num_global])
            return first, last, self.patch_logits
        first, last, masked = self.logits.split_with_sizes([num_global, rows - num_global - num_masked, num_masked])
        return first, last, masked


@dataclass(frozen=True, slots=True)
class DinoInputs:
    """A prepared micro-batch; images are crop-major and normalised.

    Attributes:
        global_images: `(2 * batch, C, S, S)` float32; bfloat16 from kernels where the networks run in it.
        local_images: `(num_local * batch, C, s, s)`, likewise.
        masks: `(2 * batch, patches)` bool.
        masked_rows: `(M,)` int64 into the flattened `(2 * batch * patches)`.
        weights: `(M,)` float32, one over the masked patches of the crop.
        drops: Stochastic depth for global and local crops.
        unit_images: Images a unit.
    """

    global_images: Tensor
    local_images: Tensor
    masks: Tensor
    masked_rows: Tensor
    weights: Tensor
    drops: tuple[DropPathRows | None, DropPathRows | None]
    unit_images: int


class DinoNetwork(nn.Module):
    """Backbone and heads, of student or teacher.

    Args:
        backbone: With mask token.
        config: The heads' sizes.
    """

    def __init__(self, backbone: Backbone, config: DinoConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.dino_head = PrototypeHead(backbone.embed_dim, config.head)
        self.ibot_head = PrototypeHead(backbone.embed_dim, config.ibot_head) if config.ibot_head else None

    def forward(
        self,
        global_images: Tensor,
        masked_rows: Tensor,
        masks: Tensor | None = None,
        local_images: Tensor | None = None,
        drops: tuple[DropPathRows | None, DropPathRows | None] = (None, None),
    ) -> DinoOutputs:
        """See `DinoInputs` and `DinoOutputs`; the teacher gets neither masks nor local crops."""
        tokens = self.backbone.encode(global_images, masks=masks, drop=drops[0])
        cls = tokens[:, 0].clone()
        patches = tokens[:, self.backbone.num_prefix_tokens :].flatten(0, 1).index_select(0, masked_rows)
        local = cls[:0]
        if local_images is not None and len(local_images):
            local = self.backbone.encode(local_images, drop=drops[1])[:, 0]
        if self.ibot_head is not None:
            return DinoOutputs(cls, self.dino_head(torch.cat([cls, local])), self.ibot_head(patches))
        return DinoOutputs(cls, self.dino_head(torch.cat([cls, local, patches])), None)


class DinoV2(Method):
    """DINOv2 as a method of the loop."""

    network: DinoNetwork

    def __init__(self, recipe: Recipe, config: DinoConfig) -> None:
        super().__init__(recipe)
        self.config = config
        backbone = build_backbone(recipe.model, image_size_px=recipe.image_size_px, mask_token=True)
        load_start_weights(backbone, recipe.model.init_from)
        self.network = DinoNetwork(backbone, config)
        self.teacher = copy.deepcopy(self.network).requires_grad_(requires_grad=False)
        self._bf16_teacher: list[Bf16Copy] = []  # in a list, so that no checkpoint holds it
        self.dino_targets = _targets(config, config.head.prototypes)
        self.ibot_targets = _targets(config, (config.ibot_head or config.head).prototypes)
        self._chances = blur_chances(recipe.augment, num_global=2, num_local=config.local_crops.num)

    def draw(self, share: Share) -> dict[str, NDArray[Any]]:
        """Block masks, stochastic depth and the strengths of augmentation."""
        recipe = self.recipe
        masks = self._draw_masks(share, side=self.config.global_crops.size_px // recipe.model.patch_size)
        drawn: dict[str, NDArray[Any]] = {"masks": masks, "masked_rows": np.flatnonzero(masks)}
        for prefix, purpose, chances in zip(_GROUPS, _AUGMENT, self._chances, strict=True):
            numbers = draw_augmentation(
                share,
                recipe.augment,
                purpose=purpose,
                chances=chances,
                channels=recipe.model.in_chans,
                by=self.kernels,
            )
            drawn |= {prefix + name: values for name, values in numbers.items()}
        if recipe.model.drop_path > 0:
            drawn["drop_global"] = self._draw_drops(share, Purpose.DROP_PATH_GLOBAL, 2)
            drawn["drop_local"] = self._draw_drops(share, Purpose.DROP_PATH_LOCAL, self.config.local_crops.num)
        return drawn

    def prepare(self, views: Sequence[Tensor], share: Share, drawn: Mapping[str, Tensor] | None = None) -> DinoInputs:
        """Augment both groups of crops; masks and stochastic depth as they were drawn."""
        if drawn is None:
            drawn = to_device(self.draw(share), views[0].device)
        images, local = (
            augment(
                view,
                share,
                self.recipe.augment,
                purpose=purpose,
                chances=chances,
                drawn=part_of(drawn, prefix),
                by=self.kernels,
                dtype=torch.bfloat16 if self.recipe.run.precision == "bf16" else torch.float32,
            )
            for view, prefix, purpose, chances in zip(views, _GROUPS, _AUGMENT, self._chances, strict=True)
        )
        masks, rows = drawn["masks"], drawn["masked_rows"]
        return DinoInputs(
            global_images=images,
            local_images=local,
            masks=masks,
            masked_rows=rows,
            weights=mask_weights(masks, rows),
            drops=(
                self._drops(drawn, "drop_global", 2, share),
                self._drops(drawn, "drop_local", self.config.local_crops.num, share),
            ),
            unit_images=share.unit_images,
        )

    def losses(self, network: nn.Module, inputs: DinoInputs, values: StepValues) -> StepLosses:
        """DINO on local and global crops, iBOT, KoLeo; targets from the teacher."""
        with torch.no_grad():
            teacher: DinoOutputs = self._teacher_to_call()(inputs.global_images, inputs.masked_rows)
            self.dino_targets.temperature = self.ibot_targets.temperature = values.teacher_temperature
        student: DinoOutputs = network(
            inputs.global_images, inputs.masked_rows, inputs.masks, inputs.local_images, inputs.drops
        )
        with torch.autocast(inputs.global_images.device.type, enabled=False):
            return self._combine(student, teacher, inputs)

    def multipliers(self, name: str) -> Multipliers:
        """Layer decay in the backbone; heads at full rate, their last layer frozen at first."""
        part, _, inner = name.partition(".")
        if part == "backbone":
            optim = self.recipe.optim
            depth = len(self.network.backbone.blocks)
            return layer_decay_multipliers(
                inner, depth=depth, decay=optim.layer_decay, patch_embed=optim.patch_embed_lr
            )
        decay = 0.0 if name.endswith(".bias") else 1.0
        return Multipliers(weight_decay=decay, last_layer="last_layer" in name)

    def clip_modules(self) -> dict[str, nn.Module]:
        """Backbone and each head."""
        return dict(self.network.named_children())

    def shard_modules(self) -> list[nn.Module]:
        """Blocks, then the networks, of student and teacher."""
        return [*self.network.backbone.blocks, self.network, *self.teacher.backbone.blocks, self.teacher]

    def export_backbone(self) -> Backbone:
        """The teacher's."""
        return self.teacher.backbone

    def end_step(self) -> None:
        """Move the centres."""
        self.dino_targets.move()
        self.ibot_targets.move()

    def update_teacher(self, momentum: float, *, skip: Tensor | None = None) -> None:
        """Exponential moving average of backbone and heads."""
        move_average(self.teacher.parameters(), self.network.parameters(), momentum=momentum, skip=skip)

    def _teacher_to_call(self) -> nn.Module:
        """The teacher; under bf16 autocast a copy whose matrices are bf16 already, and not cast at each use."""
        plain = not any(isinstance(parameter, DTensor) for parameter in self.teacher.parameters())
        if self.recipe.run.precision != "bf16" or not plain:
            return self.teacher
        if not self._bf16_teacher:
            self._bf16_teacher.append(Bf16Copy(self.teacher))
            if self.compiled.active:
                compile_parts(self._bf16_teacher[0].current())
        return self._bf16_teacher[0].current()

    def _combine(self, student: DinoOutputs, teacher: DinoOutputs, inputs: DinoInputs) -> StepLosses:
        config, num_masked = self.config, len(inputs.masked_rows)
        teacher_global, _, teacher_masked = teacher.split(num_masked)
        targets = self.dino_targets(swap_crops(teacher_global), by=self.kernels)
        patch_targets = self.ibot_targets(teacher_masked, by=self.kernels)
        student_global, student_local, student_masked = student.split(num_masked)
        # the compiler would fuse the plain formula; the kernels do with less memory traffic than that
        ready = self.compiled if self.kernels == "torch" else _as_it_is
        dino = ready(dino_losses)(
            student_global, student_local, targets, temperature=config.student_temperature, by=self.kernels
        )
        ibot = ready(ibot_loss)(
            student_masked,
            patch_targets,
            inputs.weights,
            num_crops=len(inputs.masks),
            temperature=config.student_temperature,
            by=self.kernels,
        )
        # crops A and B apart, and within units of images: the mean over units, the sum over the two crops
        by_unit = student.cls.view(-1, inputs.unit_images, student.cls.shape[-1])
        parts = {
            "dino_local": config.dino_weight * dino.local,
            "dino_global": config.dino_weight * dino.global_,
            "ibot": config.ibot_weight * ibot,
            "koleo": 2 * config.koleo_weight * koleo_loss(by_unit),
        }
        total = torch.stack(list(parts.values())).sum()
        return StepLosses(
            total=total, parts={k: v.detach() for k, v in parts.items()}, watched=_health(student.cls, targets)
        )

    def _draw_masks(self, share: Share, *, side: int) -> NDArray[np.bool_]:
        """`(2 * batch, patches)` bool on the host, crop-major."""
        units = [
            batch_masks(
                2 * share.unit_images,
                side=side,
                probability=self.config.mask_probability,
                ratio=self.config.mask_ratio,
                source=share.scalar_source(Purpose.MASK, unit),
            )
            for unit in range(share.num_units)
        ]
        by_crop = np.stack(units).reshape(share.num_units, 2, share.unit_images, side * side).swapaxes(0, 1)
        return np.ascontiguousarray(by_crop).reshape(-1, side * side)

    def _draw_drops(self, share: Share, purpose: Purpose, num_crops: int) -> NDArray[np.int64]:
        shape = (2 * len(self.network.backbone.blocks), num_crops * share.unit_images)
        draws = share.draw(purpose, lambda rng: rng.random(shape, dtype=np.float32))
        return rows_to_keep(draws, unit_images=share.unit_images, rate=self.recipe.model.drop_path)

    def _drops(self, drawn: Mapping[str, Tensor], name: str, num_crops: int, share: Share) -> DropPathRows | None:
        if name not in drawn:
            return None
        rows = drawn[name]
        kept = rows.shape[1] // share.num_units
        return DropPathRows(rows=rows, scale=num_crops * share.unit_images / kept)


def _as_it_is(function: _Function) -> _Function:
    return function


def _targets(config: DinoConfig, prototypes: int) -> EmaCenter | Sinkhorn:
    return EmaCenter(prototypes) if config.centering == "ema" else Sinkhorn()


@torch.no_grad()
def _health(cls: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """How alive the representation is.

    `feature_std`: deviation of the normalised CLS tokens over the batch times sqrt(width), near 1 when they are spread
    evenly. `teacher_entropy`: mean entropy of a target, in nats. `prototypes_used`: exp of the entropy of the mean
    target. The two collapses (all images alike; targets uniform) both show as `target_information` near 0.
    """
    normed = functional.normalize(cls.float(), dim=-1)
    entropy = torch.special.entr(targets).sum(-1).mean()
    mean_entropy = torch.special.entr(targets.mean(0)).sum()
    return {
        "feature_std": normed.std(0).mean() * normed.shape[-1] ** 0.5,
        "teacher_entropy": entropy,
        "prototypes_used": mean_entropy.exp(),
        "target_information": mean_entropy - entropy,
    }
