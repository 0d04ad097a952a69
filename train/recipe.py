"""The recipe: everything that decides a pretraining run except the data and the number of devices.

A recipe is a YAML file. Model and scale are separate dials: `model.size` and `run.*` may be changed without touching
the objective, and every schedule is a fraction of the run, so a shorter run keeps its shape.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "CropConfig",
    "DinoConfig",
    "HeadConfig",
    "MaeConfig",
    "MethodConfig",
    "ModelConfig",
    "OptimConfig",
    "Recipe",
    "RunConfig",
    "WatchConfig",
]

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=1 << 48)]
Positive = Annotated[int, Field(gt=0, lt=1 << 48)]
"""Far below what arithmetic of real numbers holds, far above what a run can have."""
Amount = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Above0 = Annotated[float, Field(gt=0)]
Pair = tuple[float, float]
Amounts = tuple[Amount, Amount]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """The Vision Transformer.

    Attributes:
        size: `nano` (64x2, for tests), `tiny` 192x12, `small` 384x12, `base` 768x12, `large` 1024x24, `huge` 1280x32.
        patch_size: Side of a patch in pixels.
        registers: Extra tokens after CLS (Darcet et al. 2023).
        ffn: `mlp` (GELU) or `swiglu`.
        layer_scale: Start value of LayerScale; null for none.
        drop_path: Share of samples that skip a residual branch, the same in every block; the student's alone.
        in_chans: Channels of the input, 3 or 1.
        init_from: Start weights of the backbone: `timm/<name>`, or a folder that `biovfm export` wrote.
    """

    size: Literal["nano", "tiny", "small", "base", "large", "huge"] = "base"
    patch_size: Positive = 16
    registers: Count = 0
    ffn: Literal["mlp", "swiglu"] = "mlp"
    layer_scale: float | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    in_chans: Literal[1, 3] = 3
    init_from: str | None = None


class CropConfig(_Section):
    """One group of crops of an image: how many, how large in pixels, which share of the area."""

    num: Positive = 1
    size_px: Positive = 224
    scale: Pair = (0.2, 1.0)
    ratio: Pair = (3 / 4, 4 / 3)
    flip_probability: Fraction = 0.5
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


class AugmentConfig(_Section):
    """What happens to crops on the device; probabilities per crop, strengths as in torchvision's ColorJitter.

    Attributes:
        blur: `effective` gives the first global crop no blur, the second 0.9, local crops 0.5: what the released
            DINOv2 models saw. `intended` gives 1.0, 0.1, 0.5: what its paper says. `none` switches it off.
        mean: Per channel, of images in [0, 1].
        std: Per channel.
    """

    jitter_probability: Fraction = 0.0
    brightness: Amount = 0.4
    contrast: Amount = 0.4
    saturation: Amount = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    gray_probability: Fraction = 0.0
    blur: Literal["effective", "intended", "none"] = "none"
    blur_sigma: Pair = (0.1, 2.0)
    solarize_probability: Fraction = 0.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Above0, Above0, Above0] = (0.229, 0.224, 0.225)


class MaeConfig(_Section):
    """Masked autoencoder (He et al. 2021)."""

    name: Literal["mae"]
    crop: CropConfig = CropConfig()
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    norm_pixels: bool = True
    decoder_width: Positive = 512
    decoder_depth: Positive = 8
    decoder_heads: Positive = 16


class HeadConfig(_Section):
    """Projection head: MLP of `layers` layers, L2 norm, weight-normed linear to `prototypes`."""

    prototypes: Positive = 65536
    hidden: Positive = 2048
    bottleneck: Positive = 256
    layers: Positive = 3


class DinoConfig(_Section):
    """DINOv2 (Oquab et al. 2023): DINO on crops, iBOT on masked patches, KoLeo on CLS tokens.

    Attributes:
        ibot_head: null shares the DINO head.
        centering: Teacher targets by an EMA centre, or three Sinkhorn-Knopp iterations.
        teacher_temperature: Start and end; linear over `teacher_temperature_warmup` of the run.
        momentum: EMA of the teacher, start and end of a cosine.
        mask_probability: Share of the global crops that are masked.
        mask_ratio: Range of the masked share of a masked crop.
    """

    name: Literal["dinov2"]
    global_crops: CropConfig = CropConfig(num=2, scale=(0.32, 1.0))
    local_crops: CropConfig = CropConfig(num=8, size_px=96, scale=(0.05, 0.32))
    head: HeadConfig = HeadConfig()
    ibot_head: HeadConfig | None = None
    centering: Literal["ema", "sinkhorn"] = "ema"
    student_temperature: Above0 = 0.1
    teacher_temperature: tuple[Above0, Above0] = (0.04, 0.07)
    teacher_temperature_warmup: Fraction = 0.3
    momentum: tuple[Fraction, Fraction] = (0.992, 1.0)
    mask_probability: Fraction = 0.5
    mask_ratio: Pair = (0.1, 0.5)
    dino_weight: Amount = 1.0
    ibot_weight: Amount = 1.0
    koleo_weight: Amount = 0.1

    @model_validator(mode="after")
    def _two_global_crops(self) -> Self:
        if self.global_crops.num != 2:
            msg = "global_crops.num must be 2: the teacher of one crop teaches the student of the other"
            raise ValueError(msg)
        return self


MethodConfig = Annotated[MaeConfig | DinoConfig, Field(discriminator="name")]


class OptimConfig(_Section):
    """AdamW and its schedules; durations are fractions of the run.

    Attributes:
        base_lr: Learning rate at the reference batch; see `lr_scaling`.
        lr_scaling: `sqrt_1024`: base x sqrt(batch/1024) (DINOv2). `linear_256`: base x batch/256 (MAE). `none`.
        weight_decay: Start and end of a cosine.
        layer_decay: Learning-rate multiplier a block, from the last block down.
        freeze_last_layer: Learning rate 0 for the heads' last layer in this first part of the run.
        clip_norm: Largest gradient norm of each module (backbone, each head); null for none.
    """

    base_lr: Amount
    lr_scaling: Literal["sqrt_1024", "linear_256", "none"]
    min_lr: Amount = 0.0
    warmup: Fraction = 0.1
    weight_decay: Amounts = (0.05, 0.05)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    layer_decay: Above0 = 1.0
    patch_embed_lr: Amount = 1.0
    freeze_last_layer: Fraction = 0.0
    clip_norm: Above0 | None = None


class RunConfig(_Section):
    """Scale and machinery.

    Attributes:
        steps: Optimiser steps of the run; 0 where `epochs` says how long it is.
        epochs: Passes over the data, whatever the batch and the data; null where `steps` says how long the run is.
        global_batch: Images a step, over all ranks.
        unit_images: Drop-path subsets, masked crops and KoLeo pairs are drawn within units of this many images (the
            reference draws them within each device's batch), so that the numbers do not depend on how many ranks
            there are. A rank's share of a micro-batch is a whole number of units.
        accumulate: Micro-batches a step.
        precision: `fp32`, or `bf16` autocast with losses in fp32.
        parallel: `ddp` or `fsdp` (FSDP2, full sharding).
        compile: `torch.compile` blocks, heads and losses; `auto` does so on CUDA, where every rank has the C compiler
            that Triton needs.
        checkpoint_activations: Recompute the blocks' activations in the backward pass.
        decode: Where images are decoded: `host`, `device` (a GPU's JPEG library; PNG and CMYK still on the host), or
            `auto`, which is decided once for all ranks, said, and kept in the checkpoints. The pixels differ slightly.
        decode_threads: Threads that decode; null is this rank's share of the host's cores, one less beside a GPU.
    """

    steps: Count = 0
    epochs: Annotated[float, Field(gt=0)] | None = None
    global_batch: Positive
    unit_images: Positive = 64
    accumulate: Positive = 1
    precision: Literal["fp32", "bf16"] = "bf16"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    compile: bool | Literal["auto"] = False
    checkpoint_activations: bool = False
    decode: Literal["host", "device", "auto"] = "host"
    decode_threads: Positive | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps > 0) == (self.epochs is not None):
            msg = "give the length of the run as steps (greater than 0) or as epochs, one of them"
            raise ValueError(msg)
        return self


class CheckpointConfig(_Section):
    """When to write checkpoints and which to keep.

    Attributes:
        every: Steps between checkpoints.
        keep_last: How many of the newest stay.
        keep_every: Those at multiples of this many steps stay for ever; null for none.
        url: Storage URL for a copy of each; a run whose output folder is empty or older goes on from there.
    """

    every: Positive = 1000
    keep_last: Positive = 3
    keep_every: Positive | None = None
    url: str | None = None


class WatchConfig(_Section):
    """What is watched, and when the run is stopped.

    Attributes:
        non_finite_patience: Consecutive non-finite steps (each skipped) before the run stops.
        collapse_patience: Consecutive collapsed steps before the run stops; 0 never stops.
        collapse_after: Fraction of the run before collapse is looked for.
        min_feature_std: Collapse: standard deviation of the normalised CLS features over the batch, times
            sqrt(width) (1 when features are spread evenly over the sphere), lies below.
        monitor_every: Steps between calls of the monitor (the online k-NN); null for the end alone.
        loggers: Besides JSON lines and TensorBoard.
    """

    non_finite_patience: Positive = 5
    collapse_patience: Count = 200
    collapse_after: Fraction = 0.1
    min_feature_std: Amount = 0.02
    monitor_every: Positive | None = None
    loggers: tuple[Literal["wandb", "mlflow"], ...] = ()


class Recipe(_Section):
    """A whole recipe; see the sections for what each setting means."""

    name: str
    seed: int = 0
    method: MethodConfig
    model: ModelConfig
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig
    run: RunConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    watch: WatchConfig = WatchConfig()

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        for crop in self.crops():
            if crop.size_px % self.model.patch_size:
                msg = f"crops of {crop.size_px} px are no whole number of {self.model.patch_size} px patches"
                raise ValueError(msg)
        return self

    def crops(self) -> tuple[CropConfig, ...]:
        """The groups of crops that the stream has to give, largest first."""
        if isinstance(self.method, MaeConfig):
            return (self.method.crop,)
        return (self.method.global_crops, self.method.local_crops)

    def in_steps(self, num_samples: int) -> Recipe:
        """The recipe with the length of its run in steps; itself where it has one.

        Args:
            num_samples: Samples an epoch.
        """
        if self.run.epochs is None:
            return self
        steps = max(round(self.run.epochs * num_samples / self.run.global_batch), 1)
        return self.model_copy(update={"run": self.run.model_copy(update={"steps": steps, "epochs": None})})

    @property
    def image_size_px(self) -> int:
        """Side of the (global) crop, for which the position embedding is made."""
        return self.crops()[0].size_px

    @property
    def effective_lr(self) -> float:
        """The peak learning rate after scaling with the batch."""
        batch = self.run.global_batch
        factor: float = {"sqrt_1024": (batch / 1024) ** 0.5, "linear_256": batch / 256, "none": 1.0}[
            self.optim.lr_scaling
        ]
        return self.optim.base_lr * factor

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, which `load_recipe` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
