"""Load any backbone by a short name, frozen and in eval mode.

    runs/demo/  or  runs/demo/export/      a training run of ours, or its export (timm's config.json + safetensors)
    s3://bucket/runs/demo                  the same on object storage, as every other folder here and every weights file
    vit_small_patch16_224.dino             a timm name; its weights come from timm's cache or its hub
    vit_small_patch16_224@weights.safetensors   an architecture and a bare weights file in timm's names
    path/to/RAD-DINO/  path/to/BiomedCLIP/ a Hugging Face or OpenCLIP folder; its names are mapped to timm's
    random:vit_tiny_patch16_224  random:runs/demo   the same network with random weights as timm draws them; how a run
                                           itself began is `biovfm export RUN --step 0 --out FOLDER`
    pixels                                 no network: the pixels themselves

Only safetensors are read: a pickled checkpoint runs code when it is opened.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn

from eval.encoders.remote_weights import fetch_file, fetch_folder, is_remote
from shards.errors import CheckpointError, ConfigError
from shards.files import read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

Pooling = Literal["patch_mean", "cls", "cls_patch_mean"]
PoolingChoice = Literal["auto", "patch_mean", "cls", "cls_patch_mean"]
POOLINGS: Final = ("patch_mean", "cls", "cls_patch_mean")
AUTO_POOLING: Final[Pooling] = "patch_mean"
"""What `auto` means for every network: the readout of BioVFM's own evaluator, for DINOv2 and MAE alike, and what the
exported folder's timm model returns. iBOT trains DINOv2's patch tokens; no loss of MAE ever sees its CLS token."""
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
PIXELS: Final = "pixels"


class PixelEncoder(nn.Module):
    """The pixels themselves as one long feature: the floor below every network."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Flatten (B, C, H, W) to (B, C·H·W)."""
        return images_BCHW.flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A frozen network and what must be known to feed it.

    Attributes:
        spec: What the user typed.
        model: The network in eval mode; (B, 3, H, W) float32, normalised.
        digest: SHA-256 over names, shapes and bytes of all weights.
        image_size_px: Edge that it was trained on.
        mean: Of each channel, subtracted from images in [0, 1].
        std: Of each channel, divided by.
        num_params: Weights of the network as it stands here (the encoder alone).
        metadata: What its trainer wrote beside it (recipe, lock digest, step …).
    """

    spec: str
    model: nn.Module
    digest: str
    image_size_px: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    num_params: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patch tokens (CLS and registers)."""
        return int(getattr(self.model, "num_prefix_tokens", 0))

    def pooling(self, choice: PoolingChoice = "auto") -> Pooling:
        """What is read out: `choice`, with `auto` resolved to `AUTO_POOLING`.

        Args:
            choice: One of `POOLINGS`, or `auto`.

        Raises:
            ConfigError: There is no such pooling.
        """
        if choice == "auto":
            return AUTO_POOLING
        if choice not in POOLINGS:
            raise ConfigError(f"no pooling {choice!r}", hint=f"one of auto, {', '.join(POOLINGS)}")
        return choice

    def check_image_size(self, image_size_px: int) -> None:
        """Refuse images that the network cannot cut into whole patches.

        Raises:
            ConfigError: The size is no multiple of the patch size.
        """
        patch: Any = getattr(getattr(self.model, "patch_embed", None), "patch_size", None)
        patch_px = _edge(patch) if patch else 1
        if image_size_px % patch_px:
            raise ConfigError(
                f"{image_size_px} px is no whole number of {patch_px} px patches",
                hint=f"use --image-size {-(-image_size_px // patch_px) * patch_px}",
            )

    def tokens(self, images_BCHW: Tensor, *, normed: bool = True) -> Tensor:
        """All tokens of the last block, by the network's own `encode` where it has one (the trainer's), else timm's.

        Args:
            images_BCHW: (B, 3, H, W) float32, normalised.
            normed: After the final norm; False takes them before it, as BioVFM's probe does.

        Returns:
            (B, prefix + patches, D); (B, C, H, W) where the network has no tokens.
        """
        model: Any = self.model
        forward = getattr(model, "encode", None) or model.forward_features
        norm = getattr(model, "norm", None)
        if normed or norm is None:
            return torch.as_tensor(forward(images_BCHW))
        model.norm = nn.Identity()
        try:
            return torch.as_tensor(forward(images_BCHW))
        finally:
            model.norm = norm

    def features(self, images_BCHW: Tensor, pooling: Pooling = "patch_mean") -> Tensor:
        """One vector an image.

        Args:
            images_BCHW: (B, 3, H, W) float32, normalised.
            pooling: `patch_mean` (mean of the patch tokens; defined for every ViT, also MAE's, whose CLS is never
                trained), `cls`, or both side by side. Networks without tokens give their own pooled vector.

        Returns:
            (B, D) float32.

        Raises:
            ConfigError: `cls` of a network that has no CLS token.
        """
        if isinstance(self.model, PixelEncoder):
            return torch.as_tensor(self.model(images_BCHW)).float()
        tokens = self.tokens(images_BCHW)
        if tokens.ndim != 3:
            model: Any = self.model
            return torch.as_tensor(model.forward_head(tokens, pre_logits=True)).flatten(1).float()
        return pool_tokens(tokens, self.num_prefix_tokens, pooling).float()


def pool_tokens(tokens_BND: Tensor, num_prefix: int, pooling: Pooling) -> Tensor:
    """One vector from the tokens of each image.

    Args:
        tokens_BND: (B, prefix + patches, D).
        num_prefix: CLS and register tokens in front.
        pooling: See `Backbone.features`.

    Returns:
        (B, D), or (B, 2·D) for `cls_patch_mean`.

    Raises:
        ConfigError: `cls` without a CLS token.
    """
    if pooling != "patch_mean" and not num_prefix:
        raise ConfigError("this network has no CLS token", hint="use --pooling patch_mean")
    patches = tokens_BND[:, num_prefix:].mean(dim=1)
    if pooling == "patch_mean":
        return patches
    cls = tokens_BND[:, 0]
    return cls if pooling == "cls" else torch.cat([cls, patches], dim=1)


def load_backbone(spec: str, *, device: str = "cpu", seed: int = 0, image_size_px: int = 28) -> Backbone:
    """Load a backbone; this module's head lists what `spec` may be.

    Args:
        spec: Folder, timm name, `ARCHITECTURE@FILE.safetensors`, `random:…` or `pixels`.
        device: Where the network goes.
        seed: Of `random:` weights.
        image_size_px: Of `pixels` alone, which have no size of their own.

    Raises:
        CheckpointError: The folder or file is missing, incomplete or of another network.
        ConfigError: The name means nothing.
    """
    if spec == PIXELS:
        pixels = PixelEncoder()
        return Backbone(
            spec=spec, model=pixels, digest=PIXELS, image_size_px=image_size_px, mean=(0.0,) * 3, std=(1.0,) * 3
        )
    if spec.startswith("random:"):
        loaded = _randomised(load_structure(spec.removeprefix("random:")), seed)
        loaded = replace(loaded, spec=spec, metadata={**loaded.metadata, "random_weights": True})
    else:
        loaded = _load(spec)
    model = loaded.model.to(device).eval().requires_grad_(requires_grad=False)
    return replace(
        loaded, model=model, digest=weights_digest(model), num_params=sum(p.numel() for p in model.parameters())
    )


def load_structure(spec: str) -> Backbone:
    """The network of `spec` without its weights where that is possible (a timm name), with them otherwise."""
    path = _as_path(spec)
    if path is None and "@" not in spec:
        return _from_timm(spec, pretrained=False)
    if "@" in spec:
        return _from_timm(spec.partition("@")[0], pretrained=False)
    return _load(spec)


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _load(spec: str) -> Backbone:
    if "@" in spec:
        architecture, _, file = spec.partition("@")
        loaded = _from_timm(architecture, pretrained=False)
        weights = fetch_file(file) if is_remote(file) else Path(file).expanduser()
        _fill(loaded.model, _read_weights(weights), file)
        return replace(loaded, spec=spec)
    path = _as_path(spec)
    if path is None:
        return _from_timm(spec, pretrained=True)
    if path.is_file():
        raise ConfigError(f"{path} is a bare file", hint=f"name its architecture: vit_small_patch16_224@{path}")
    return _from_folder(spec, path)


def _as_path(spec: str) -> Path | None:
    if is_remote(spec):
        return fetch_folder(spec)
    path = Path(spec).expanduser()
    if path.exists():
        return path
    if spec.startswith((".", "/", "~")) or spec.endswith((".safetensors", "/")):
        raise CheckpointError(f"there is no {spec}", hint="give a run folder, its export, or a timm name")
    return None


def _from_folder(spec: str, path: Path) -> Backbone:
    """A run of ours, a timm export, a Hugging Face folder or an OpenCLIP folder."""
    from eval.encoders.foreign_weights import read_huggingface, read_open_clip

    if (path / "export" / "config.json").is_file():
        return _from_folder(spec, path / "export")
    if (path / "open_clip_config.json").is_file():
        config, weights = read_open_clip(path)
        return _build(spec, config, weights, path)
    file = path / "config.json"
    if not file.is_file():
        hint = "a run folder has an export/ with config.json and model.safetensors: run `biovfm export` first"
        raise CheckpointError(f"{path} holds no config.json", hint=hint)
    config = read_json_object(file, error=CheckpointError, hint="export it again")
    if "architecture" in config:
        _check_sum(path / "model.safetensors", config, spec)
        return _build(spec, config, _read_weights(path / "model.safetensors"), path)
    config, weights = read_huggingface(path, config)
    return _build(spec, config, weights, path)


def _build(spec: str, config: dict[str, Any], weights: dict[str, Tensor], path: Path) -> Backbone:
    """A timm network from its config.json, filled."""
    loaded = _from_timm(
        str(config["architecture"]),
        pretrained=False,
        model_args=dict(config.get("model_args") or {}),
        pretrained_cfg=dict(config.get("pretrained_cfg") or {}),
    )
    _fill(loaded.model, weights, str(path))
    notes = dict(config.get("biovfm") or {})
    return replace(loaded, spec=spec, metadata=notes | _run_notes(path.parent, notes.get("step")))


def _check_sum(file: Path, config: dict[str, Any], spec: str) -> None:
    """Compare the weights with the checksum that their export states; earlier releases stated none."""
    stated = (config.get("biovfm") or {}).get("weights_sha256")
    if stated is None or not file.is_file():
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != stated:
        raise CheckpointError(
            f"{spec}: the weights are not those that config.json describes: their checksum is another",
            hint="biovfm export writes both again",
        )


def _run_notes(run: Path, step: int | None) -> dict[str, Any]:
    """What the checkpoint of an exported step says of its samples (the lock's digest) and of the code."""
    for file in run.glob("checkpoints/step-*/meta.json"):
        try:
            found = read_json_object(file, error=CheckpointError, hint="")
        except CheckpointError:  # of another step, or damaged: the weights are whole, and these are notes beside them
            continue
        if found.get("step") == step:
            return {"samples_digest": found.get("digest"), "code_version": found.get("code_version")}
    return {}


def _from_timm(
    name: str,
    *,
    pretrained: bool,
    model_args: dict[str, Any] | None = None,
    pretrained_cfg: dict[str, Any] | None = None,
) -> Backbone:
    import timm

    settings = {"num_classes": 0, **(model_args or {})}
    known = name.startswith(("hf-hub:", "local-dir:")) or timm.is_model(name.partition(".")[0].removeprefix("timm/"))
    if not known:
        near = timm.list_models(f"*{name[:8]}*")[:1] or ["vit_small_patch16_224"]
        raise ConfigError(f"{name!r} is neither a folder nor a timm network", hint=f"did you mean {near[0]}?")
    model = _create(name, pretrained=pretrained, settings=settings)
    data = dict(pretrained_cfg or getattr(model, "pretrained_cfg", None) or {})
    size = (settings.get("img_size"), data.get("input_size"))
    return Backbone(
        spec=name,
        model=model,
        digest="",
        image_size_px=_edge(size[0]) if size[0] else _edge((size[1] or (3, 224, 224))[-1]),
        mean=tuple(data.get("mean") or IMAGENET_MEAN),
        std=tuple(data.get("std") or IMAGENET_STD),
    )


def _edge(size: int | list[int] | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else int(size[-1])


def _create(name: str, *, pretrained: bool, settings: dict[str, Any]) -> nn.Module:
    """Make the network; ViTs accept other image sizes than their own by interpolating their position embedding."""
    import timm

    flexible = {"dynamic_img_size": True, **settings}
    last: Exception | None = None
    for arguments in (flexible, settings):
        try:
            model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
        except TypeError as error:
            last = error
        except (OSError, RuntimeError, ValueError) as error:
            what = "its weights could not be fetched" if pretrained else "it could not be built"
            raise CheckpointError(
                f"{name}: {what} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})",
                hint=f"without a network take a local folder, {name}@weights.safetensors, or random:{name}",
            ) from error
        else:
            return model
    raise ConfigError(f"{name} does not take {settings}: {last}")


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", hint="only safetensors are read; run `biovfm export`")
    from eval.encoders.foreign_weights import read_safetensors

    return read_safetensors(path)


def _fill(model: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Load weights; a classification head may be left over, nothing else may be missing or strange."""
    own = model.state_dict()
    usable = {name: tensor for name, tensor in weights.items() if not name.startswith(("head.", "fc."))}
    wrong = [
        f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in usable.items()
        if name in own and own[name].shape != tensor.shape
    ]
    missing, extra = sorted(own.keys() - usable.keys()), sorted(usable.keys() - own.keys())
    if wrong or missing or extra:
        found = [
            *(f"shape of {text}" for text in wrong),
            *(f"missing {n}" for n in missing),
            *(f"no {n}" for n in extra),
        ]
        raise CheckpointError(
            f"{origin} is of another network: {'; '.join(found[:3])}{' …' if len(found) > 3 else ''}",
            hint="check the architecture's name, patch size and image size",
        )
    model.load_state_dict(usable)


def _randomised(loaded: Backbone, seed: int) -> Backbone:
    """The same network, every module initialised anew from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = loaded.model
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        if callable(getattr(model, "init_weights", None)):
            model.init_weights("")
    return loaded
