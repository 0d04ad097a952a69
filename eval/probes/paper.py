"""BioVFM's own probe, for numbers that compare with the paper's: slow, and not what this package recommends.

A frozen backbone's last tokens *before* its final norm, averaged over the patches, go through a LayerNorm without
weights, a BatchNorm without weights and one linear layer, which AdamW (1e-2, no decay, a cosine to 0 by epochs) fits
for 100 epochs in batches of 128; the epoch of the smallest validation loss is kept. Images are rotated by up to 30°
and cropped after padding by 4 px, and normalised by 0.5 / 0.5 although the backbones were trained with ImageNet's
mean and deviation. So every epoch is a forward pass over all images: nothing can be cached.

The authors leave the frozen backbone in train mode. DINOv2's uniform stochastic depth of 0.3 then stays on while the
head trains (two passes over one batch differ by two thirds in norm), MAE has none, so the two are not compared alike.
`train_mode_backbone=True` does as they do; the default does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from eval.encoders.encoder import Backbone, PixelEncoder, load_backbone
from eval.medmnist.data import Split, Task
from eval.medmnist.tasks import MULTI_LABEL, Kind
from eval.probes.caveats import check_classes
from eval.probes.features import Preprocessing, Report, feature_cache, to_unit
from eval.probes.linear import Prediction, score
from eval.probes.logistic import probabilities
from eval.probes.results import ProbeResult
from eval.scoring.bootstrap import NUM_RESAMPLES
from eval.scoring.metrics import Floats, Labels
from shards.errors import ConfigError

NUM_EPOCHS: Final = 100
SEED: Final = 42
"""The one that the paper ran."""
BATCH_SIZE: Final = 128
LEARNING_RATE: Final = 1e-2
EPSILON: Final = 1e-6
MEAN_STD: Final = (0.5, 0.5, 0.5)
MAX_DEGREES: Final = 30.0
PADDING_PX: Final = 4
DROP_PATH: Final = 0.3

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFit:
    """A fitted head and how it got there.

    Attributes:
        head: At the epoch of the smallest validation loss, in eval mode.
        last: At the last epoch.
        val_losses: After each epoch.
    """

    head: nn.Sequential
    last: nn.Sequential
    val_losses: list[float]

    @property
    def best_epoch(self) -> int:
        """From 0."""
        return int(np.argmin(self.val_losses))


def paper_features(tokens_BND: Tensor, num_prefix: int) -> Tensor:
    """LayerNorm without weights of the mean patch token: (B, N, D) to (B, D)."""
    mean = tokens_BND[:, num_prefix:].mean(dim=1)
    return nn.functional.layer_norm(mean, mean.shape[-1:], eps=EPSILON)


def make_head(dimension: int, num_outputs: int, *, seed: int = 0) -> nn.Sequential:
    """BatchNorm without weights, then a linear layer (truncated normal, 0.01)."""
    head = nn.Sequential(nn.BatchNorm1d(dimension, affine=False, eps=EPSILON), nn.Linear(dimension, num_outputs))
    linear: Any = head[1]
    nn.init.trunc_normal_(linear.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(linear.bias)
    return head


def fit_head(
    head: nn.Sequential,
    batches: Batches,
    val: tuple[Tensor, Tensor],
    *,
    kind: Kind,
    num_epochs: int = NUM_EPOCHS,
    learning_rate: float = LEARNING_RATE,
) -> HeadFit:
    """Train a head.

    Args:
        head: From `make_head`; changed in place.
        batches: Epoch → batches of (features (B, D), labels (B,) or (B, L)).
        val: Features and labels of the validation split.
        kind: One of MedMNIST's four kinds.
        num_epochs: Length of the cosine.
        learning_rate: At the first epoch.
    """
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=0.0)
    best: dict[str, Tensor] = {}
    val_losses: list[float] = []
    for epoch in range(num_epochs):
        optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + np.cos(np.pi * epoch / num_epochs))
        head.train()
        for features, labels in batches(epoch):
            optimizer.zero_grad()
            _loss(head(features), labels, kind).backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
        head.eval()
        with torch.no_grad():
            val_losses.append(float(_loss(head(val[0]), val[1], kind)))
        if val_losses[-1] == min(val_losses):
            best = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    kept = make_head(val[0].shape[1], best["1.weight"].shape[0]).to(val[0].device).eval()
    kept.load_state_dict(best)
    return HeadFit(head=kept, last=head, val_losses=val_losses)


def _loss(logits: Tensor, labels: Tensor, kind: Kind) -> Tensor:
    if kind == MULTI_LABEL:
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    return nn.functional.cross_entropy(logits, labels)


def augment(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate each image by up to 30°, nearest neighbour, then crop it after padding by 4 px; outside is black.

    Args:
        images_BCHW: (B, 3, S, S) float32 in [0, 1].
        generator: On the CPU.
    """
    batch, _, height, width = images_BCHW.shape
    device = images_BCHW.device
    radians = (torch.rand(batch, generator=generator) * 2 - 1).to(device) * (MAX_DEGREES * torch.pi / 180)
    shifts = torch.randint(-PADDING_PX, PADDING_PX + 1, (batch, 2), generator=generator).to(device)
    rows = torch.arange(height, device=device).view(1, -1, 1) + shifts[:, :1, None]
    columns = torch.arange(width, device=device).view(1, 1, -1) + shifts[:, 1:, None]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    y = (rows - (height - 1) / 2).expand(-1, -1, width)
    x = (columns - (width - 1) / 2).expand(-1, height, -1)
    cos, sin = radians.cos().view(-1, 1, 1), radians.sin().view(-1, 1, 1)
    grid = torch.stack([(cos * x - sin * y) / (width / 2), (sin * x + cos * y) / (height / 2)], dim=-1)
    turned = nn.functional.grid_sample(images_BCHW, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return turned * inside.unsqueeze(1)


def probe_paper(
    backbone: Backbone | str,
    tasks: Sequence[Task],
    *,
    seeds: Sequence[int] = (SEED,),
    num_epochs: int = NUM_EPOCHS,
    batch_size: int = BATCH_SIZE,
    image_size_px: int | None = None,
    train_mode_backbone: bool = False,
    augmented: bool = True,
    device: str = "cpu",
    cache: Path | None = None,
    num_resamples: int = NUM_RESAMPLES,
    report: Report | None = None,
) -> list[ProbeResult]:
    """The paper's protocol; one result for each task and seed.

    Args:
        backbone: A ViT, loaded or named.
        tasks: From `eval.medmnist.data.load_task`; the paper takes 224 px.
        seeds: Of head, order and augmentation; the paper ran 42 alone.
        num_epochs: 100 in the paper.
        batch_size: 128 in the paper.
        image_size_px: Edge that the network sees; None takes the one that it was trained on.
        train_mode_backbone: Keep stochastic depth on while the head trains, as the authors do.
        augmented: Rotate and crop training images.
        device: Where everything runs.
        cache: Folder for the scores; None takes `eval.probes.features.feature_cache()`.
        num_resamples: Of the bootstrap intervals.
        report: Called with (epochs done, epochs in all).

    Raises:
        ConfigError: The backbone is no ViT.
    """
    loaded = load_backbone(backbone, device=device) if isinstance(backbone, str) else backbone
    if isinstance(loaded.model, PixelEncoder) or not hasattr(loaded.model, "blocks"):
        raise ConfigError("the paper's protocol is for ViTs", hint="leave out --paper-protocol")
    loaded.check_image_size(image_size_px or loaded.image_size_px)
    for task in tasks:
        check_classes(task)
    options = {
        "num_epochs": num_epochs,
        "batch_size": batch_size,
        "train_mode_backbone": train_mode_backbone,
        "augmented": augmented,
        "network_image_size_px": image_size_px or loaded.image_size_px,
        "normalised_by": list(MEAN_STD),
    }
    return [
        score(
            _predict(loaded, task, seed=seed, options=options, device=device, report=report),
            task,
            loaded,
            protocol="paper",
            seed=seed,
            options=options,
            scores=(cache or feature_cache()) / "scores",
            num_resamples=num_resamples,
        )
        for task in tasks
        for seed in seeds
    ]


def _predict(
    backbone: Backbone, task: Task, *, seed: int, options: dict[str, Any], device: str, report: Report | None
) -> Prediction:
    started = time.perf_counter()
    encoder = _Encoder(backbone, options["network_image_size_px"], device, seed)
    val, test = (encoder.whole(split) for split in (task.val, task.test))
    labels = _labels(task.val.labels, task.kind).to(device)
    epochs: int = options["num_epochs"]

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        if report:
            report(epoch + 1, epochs)
        yield from encoder.shuffled(
            task.train,
            task.kind,
            batch_size=options["batch_size"],
            train_mode=options["train_mode_backbone"],
            augmented=options["augmented"],
        )

    num_outputs = task.num_classes
    head = make_head(val.shape[1], num_outputs, seed=seed).to(device)
    fit = fit_head(head, batches, (val, labels), kind=task.kind, num_epochs=epochs)
    return Prediction(
        val=_probabilities(fit.head, val, task.kind),
        test=_probabilities(fit.head, test, task.kind),
        settings={"best_epoch": fit.best_epoch, "val_loss": min(fit.val_losses)},
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def _probabilities(head: nn.Sequential, features: Tensor, kind: Kind) -> Floats:
    probabilities_NK: Floats = probabilities(head(features).double(), kind).cpu().numpy()
    return probabilities_NK


def _labels(labels: Labels, kind: Kind) -> Tensor:
    tensor = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    return tensor if kind == MULTI_LABEL else tensor[:, 0]


class _Encoder:
    """The frozen backbone with the paper's preprocessing."""

    def __init__(self, backbone: Backbone, image_size_px: int, device: str, seed: int) -> None:
        self.backbone = backbone
        self.device = device
        channels = len(backbone.mean)
        self.preprocessing = Preprocessing(
            image_size_px=image_size_px, mean=MEAN_STD[:channels], std=MEAN_STD[:channels]
        )
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def __call__(self, unit_BCHW: Tensor) -> Tensor:
        tokens = self.backbone.tokens(self.preprocessing.normalise(unit_BCHW), normed=False)
        return paper_features(tokens, self.backbone.num_prefix_tokens).float()

    def whole(self, split: Split) -> Tensor:
        """Features of a split without augmentation, in eval mode: (N, D)."""
        starts = range(0, len(split), BATCH_SIZE)
        return torch.cat([self(to_unit(split.images[s : s + BATCH_SIZE], device=self.device)) for s in starts])

    def shuffled(
        self, split: Split, kind: Kind, *, batch_size: int, train_mode: bool, augmented: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of (features, labels); the last, short batch is kept unless BatchNorm could not take it."""
        labels = _labels(split.labels, kind).to(self.device)
        size = self.preprocessing.image_size_px
        with stochastic_depth(self.backbone.model, on=train_mode):
            order = torch.randperm(len(split), generator=self.generator).numpy()
            for start in range(0, len(order), batch_size):
                rows = np.sort(order[start : start + batch_size])
                if len(rows) == 1:
                    continue
                unit = to_unit(split.images[rows], device=self.device)
                if unit.shape[-1] != size:
                    unit = nn.functional.interpolate(unit, size=(size, size), mode="bicubic", antialias=True)
                if augmented:
                    unit = augment(unit.clamp(0, 1), self.generator)
                yield self(unit), labels[rows]


@contextmanager
def stochastic_depth(model: nn.Module, *, on: bool) -> Iterator[None]:
    """Within it the network is in train mode with DINOv2's uniform stochastic depth, where `on` is set."""
    from timm.layers.drop import DropPath

    blocks: Any = model.blocks if on else ()
    before = [(block, name, getattr(block, name)) for block in blocks for name in ("drop_path1", "drop_path2")]
    for block, name, _ in before:
        setattr(block, name, DropPath(DROP_PATH))
    model.train(on)
    try:
        yield
    finally:
        for block, name, module in before:
            setattr(block, name, module)
        model.eval()
