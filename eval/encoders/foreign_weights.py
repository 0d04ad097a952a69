"""Other people's checkpoint folders in timm's names: Hugging Face's ViT, ViT-MAE and DINOv2, and OpenCLIP's.

A reader returns what `eval.encoders.encoder` needs: a config as timm writes it, and the weights under timm's names.
Heads, text towers and decoders stay behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from shards.errors import CheckpointError
from shards.files import read_json_object

Config = dict[str, Any]
Weights = dict[str, Tensor]

_AGAIN: Final = "export it, or download it, again"
_PICKLED: Final = ("pytorch_model.bin", "open_clip_pytorch_model.bin", "model.pt")

_COMMON: Final = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_DINOV2_BLOCK: Final = {
    "norm1": "norm1",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "layer_scale2.lambda1": "ls2.gamma",
}
_VIT_BLOCK: Final = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_LAYER: Final = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_QKV: Final = re.compile(r"attention\.attention\.(query|key|value)\.(weight|bias)")
_LEFT_BEHIND: Final = ("pooler.", "classifier.", "decoder.", "embeddings.mask_token")


def read_huggingface(path: Path, config: Config) -> tuple[Config, Weights]:
    """A folder with a Hugging Face config.json.

    Raises:
        CheckpointError: An unknown model type, pickled weights, or names that do not fit.
    """
    kind = str(config.get("model_type"))
    describe: dict[str, tuple[dict[str, str], Callable[[Config], Config]]] = {
        "dinov2": (_DINOV2_BLOCK, _dinov2_args),
        "dinov2_with_registers": (_DINOV2_BLOCK, _dinov2_args),
        "vit": (_VIT_BLOCK, _vit_args),
        "vit_mae": (_VIT_BLOCK, _vit_args),
    }
    if kind not in describe:
        raise CheckpointError(
            f"{path}: no mapping for model_type {kind!r}", hint=f"known: {', '.join(describe)}, and timm's exports"
        )
    block, arguments = describe[kind]
    raw = _safetensors(path, "model.safetensors")
    prefix = next((p for p in ("dinov2.", "vit.", "") if f"{p}embeddings.cls_token" in raw), "")
    stripped = {name.removeprefix(prefix): tensor for name, tensor in raw.items() if name.startswith(prefix)}
    try:
        args, size = arguments(config), int(config.get("image_size", 224))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path / 'config.json'}: {type(error).__name__} {error}", hint=_AGAIN) from error
    return (
        {
            "architecture": "vit_base_patch16_224",
            "model_args": {"num_classes": 0, "img_size": size, **args},
            "pretrained_cfg": {"input_size": [3, size, size], **_preprocessing(path)},
        },
        _rename(stripped, block, path),
    )


def read_open_clip(path: Path) -> tuple[Config, Weights]:
    """A folder with an open_clip_config.json whose image tower is one of timm's (BiomedCLIP).

    Raises:
        CheckpointError: The tower is not timm's, or the weights are pickled.
    """
    config = read_json_object(path / "open_clip_config.json", error=CheckpointError, hint=_AGAIN)
    vision = config.get("model_cfg", {}).get("vision_cfg", {})
    if "timm_model_name" not in vision:
        raise CheckpointError(f"{path}: its image tower is not one of timm's", hint="convert it to timm's names")
    preprocessing = config.get("preprocess_cfg", {})
    weights = _safetensors(path, "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
    trunk = "visual.trunk."
    return (
        {
            "architecture": vision["timm_model_name"],
            "model_args": {"num_classes": 0},
            "pretrained_cfg": {
                "input_size": [3, *[int(vision.get("image_size", 224))] * 2],
                **{key: preprocessing[key] for key in ("mean", "std") if key in preprocessing},
            },
        },
        {name.removeprefix(trunk): tensor for name, tensor in weights.items() if name.startswith(trunk)},
    )


def read_safetensors(path: Path) -> Weights:
    """The tensors of one file.

    Raises:
        CheckpointError: It is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: Weights = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}", hint=_AGAIN) from error
    return weights


def _safetensors(path: Path, *names: str) -> Weights:
    for name in names:
        if (path / name).is_file():
            return read_safetensors(path / name)
    pickled = [name for name in _PICKLED if (path / name).is_file()]
    found = f"only {pickled[0]}, a pickle, which runs code when opened" if pickled else f"no {names[0]}"
    raise CheckpointError(f"{path} holds {found}", hint=f"convert it to {names[0]} where you trust it")


def _preprocessing(path: Path) -> Config:
    file = path / "preprocessor_config.json"
    if not file.is_file():
        return {}
    config = read_json_object(file, error=CheckpointError, hint=_AGAIN)
    return {ours: config[theirs] for ours, theirs in (("mean", "image_mean"), ("std", "image_std")) if theirs in config}


def _vit_args(config: Config) -> Config:
    hidden = int(config["hidden_size"])
    return {
        "patch_size": int(config.get("patch_size", 16)),
        "embed_dim": hidden,
        "depth": int(config["num_hidden_layers"]),
        "num_heads": int(config["num_attention_heads"]),
        "mlp_ratio": int(config.get("intermediate_size", 4 * hidden)) / hidden,
        "qkv_bias": bool(config.get("qkv_bias", True)),
    }


def _dinov2_args(config: Config) -> Config:
    args = _vit_args({**config, "intermediate_size": int(config["hidden_size"]) * int(config.get("mlp_ratio", 4))})
    args |= {"init_values": float(config.get("layerscale_value", 1.0))}
    registers = int(config.get("num_register_tokens", 0)) if "register" in str(config["model_type"]) else 0
    if registers:
        args |= {"reg_tokens": registers}
    if config.get("use_swiglu_ffn"):
        raise CheckpointError("SwiGLU blocks of a Hugging Face DINOv2 are not mapped", hint="use timm's copy of it")
    return args


def _rename(raw: Weights, block: dict[str, str], path: Path) -> Weights:
    """Hugging Face's names → timm's; query, key and value become one matrix."""
    renamed: Weights = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in raw.items():
        if name.startswith(_LEFT_BEHIND):
            continue
        layer = _LAYER.fullmatch(name)
        if layer and (qkv := _QKV.fullmatch(layer[2])):
            parts.setdefault((f"blocks.{layer[1]}.attn.qkv", qkv[2]), {})[qkv[1]] = tensor
            continue
        new = _in_block(layer[1], layer[2], block) if layer else _translate(name, _COMMON)
        if new is None:
            raise CheckpointError(f"{path}: no place for {name}", hint="only plain ViT, ViT-MAE and DINOv2 are mapped")
        renamed[new] = tensor
    for (prefix, leaf), three in parts.items():
        renamed[f"{prefix}.{leaf}"] = torch.cat([three["query"], three["key"], three["value"]])
    return renamed


def _in_block(number: str, rest: str, block: dict[str, str]) -> str | None:
    new = _translate(rest, block)
    return f"blocks.{number}.{new}" if new else None


def _translate(name: str, table: dict[str, str]) -> str | None:
    if name in table:
        return table[name]
    stem, _, leaf = name.rpartition(".")
    return f"{table[stem]}.{leaf}" if stem in table else None
