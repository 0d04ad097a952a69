"""Every way to name a backbone, and what happens when the weights are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eval.encoders.encoder import Backbone, load_backbone, pool_tokens
from shards.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.torch

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}


def small_vit(**changes: Any) -> nn.Module:
    torch.manual_seed(3)
    model: nn.Module = timm.create_model("vit_base_patch16_224", **{**SMALL, **changes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def write_export(folder: Path, model: nn.Module, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    config = {
        "architecture": "vit_base_patch16_224",
        "model_args": SMALL,
        "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
        "biovfm": {"step": 7},
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_run_and_its_export_are_the_same_network(tmp_path: Path, images: Tensor) -> None:
    model = small_vit()
    write_export(tmp_path / "run" / "export", model)
    run, export = (load_backbone(str(path)) for path in (tmp_path / "run", tmp_path / "run" / "export"))
    assert run.digest == export.digest
    assert (run.image_size_px, run.mean, run.std) == (32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert run.metadata == {"step": 7}
    assert run.num_params == sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        tokens = model.forward_features(images)
        assert torch.allclose(run.features(images), tokens[:, 1:].mean(dim=1), atol=1e-6)
        assert torch.allclose(run.features(images, "cls"), tokens[:, 0], atol=1e-6)
        assert run.features(images, "cls_patch_mean").shape == (3, 64)
    assert not any(p.requires_grad for p in run.model.parameters())
    assert not run.model.training


def test_an_export_of_the_trainer_loads(tmp_path: Path, images: Tensor) -> None:
    from tests.train.recipes import mae_recipe
    from train.backbone import build_backbone
    from train.export import write_export as write

    recipe = mae_recipe()
    trained = build_backbone(recipe.model, image_size_px=32).eval()
    write(trained.state_dict(), recipe, tmp_path / "run" / "export", step=5)
    loaded = load_backbone(str(tmp_path / "run"))
    with torch.no_grad():
        assert torch.allclose(loaded.tokens(images), trained.forward_features(images), atol=1e-5)
    assert loaded.metadata["step"] == 5
    assert "samples_digest" not in loaded.metadata
    for step in (3, 5):
        meta = tmp_path / "run" / "checkpoints" / f"step-{step}" / "meta.json"
        meta.parent.mkdir(parents=True)
        meta.write_text(json.dumps({"step": step, "digest": f"sha256:{step}", "code_version": "1"}))
    for place in (tmp_path / "run", tmp_path / "run" / "export"):
        assert load_backbone(str(place)).metadata["samples_digest"] == "sha256:5"
    assert loaded.mean == tuple(recipe.augment.mean)


@pytest.mark.parametrize(
    "changes", [{"registers": 2, "layer_scale": 0.1}, {"in_chans": 1}, {"ffn": "swiglu", "layer_scale": 0.1}]
)
def test_unusual_exports_of_the_trainer_load(tmp_path: Path, images: Tensor, changes: dict[str, Any]) -> None:
    from tests.train.recipes import mae_recipe
    from train.backbone import build_backbone
    from train.export import write_export as write

    recipe = mae_recipe(model=changes)
    trained = build_backbone(recipe.model, image_size_px=32).eval()
    write(trained.state_dict(), recipe, tmp_path / "export", step=1)
    loaded = load_backbone(str(tmp_path / "export"))
    assert loaded.num_prefix_tokens == 1 + changes.get("registers", 0)
    assert len(loaded.mean) == changes.get("in_chans", 3)
    batch = images[:, : changes.get("in_chans", 3)]
    with torch.no_grad():
        tokens = trained.encode(batch)
        assert torch.allclose(loaded.tokens(batch), tokens, atol=1e-5)
        live = Backbone(spec="live", model=trained, digest="", image_size_px=32)
        assert torch.equal(live.features(batch), tokens[:, loaded.num_prefix_tokens :].mean(dim=1))


def test_tokens_before_the_final_norm(tmp_path: Path, images: Tensor) -> None:
    loaded = load_backbone(str(write_export(tmp_path / "export", small_vit())))
    with torch.no_grad():
        before, after = loaded.tokens(images, normed=False), loaded.tokens(images)
        assert torch.allclose(loaded.model.norm(before), after, atol=1e-6)
    assert isinstance(loaded.model.norm, nn.LayerNorm)


def test_other_image_sizes_are_interpolated(tmp_path: Path) -> None:
    loaded = load_backbone(str(write_export(tmp_path / "export", small_vit())))
    assert loaded.features(torch.zeros(1, 3, 48, 48)).shape == (1, 32)


def test_bare_weights_with_an_architecture(tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    loaded = load_backbone(f"vit_tiny_patch16_224@{path}")
    assert torch.equal(loaded.model.cls_token, model.cls_token)
    with pytest.raises(ConfigError, match="name its architecture"):
        load_backbone(str(path))
    with pytest.raises(CheckpointError, match="of another network: shape of"):
        load_backbone(f"vit_small_patch16_224@{path}")


def test_random_weights_follow_their_seed(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", small_vit())
    first, again, other = (load_backbone(f"random:{export}", seed=seed) for seed in (0, 0, 1))
    assert first.digest == again.digest
    assert first.digest not in {other.digest, load_backbone(str(export)).digest}
    assert first.metadata["random_weights"] is True
    assert load_backbone("random:vit_tiny_patch16_224").num_params == 5_524_416


def test_convolutional_networks_have_features_but_no_cls() -> None:
    loaded = load_backbone("random:resnet18")
    assert loaded.features(torch.zeros(2, 3, 64, 64)).shape == (2, 512)
    with pytest.raises(ConfigError, match="no CLS token"):
        pool_tokens(torch.zeros(1, 4, 8), 0, "cls")


def test_pixels() -> None:
    loaded = load_backbone("pixels", image_size_px=28)
    assert loaded.features(torch.ones(2, 1, 28, 28)).shape == (2, 784)


def test_wrong_names_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a folder nor a timm network"):
        load_backbone("vit_tinny_patch16")
    with pytest.raises(CheckpointError, match=r"there is no \./nowhere"):
        load_backbone("./nowhere")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load_backbone(str(tmp_path))
    export = write_export(tmp_path / "export", small_vit())
    (export / "model.safetensors").write_bytes(b"\x00" * 16)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_backbone(str(export))
    (export / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        load_backbone(str(export))


def test_weights_that_are_missing_or_too_many_are_named(tmp_path: Path) -> None:
    model = small_vit()
    export = write_export(tmp_path / "export", model)
    weights = dict(model.state_dict())
    weights["blocks.9.norm1.weight"] = weights.pop("norm.weight")
    save_file(weights, export / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing norm.weight; no blocks.9.norm1.weight"):
        load_backbone(str(export))


def huggingface_names(model: nn.Module, *, dinov2: bool) -> dict[str, Tensor]:
    """timm's weights under Hugging Face's names, written out independently of the reader."""
    state, out = model.state_dict(), {}
    out["embeddings.cls_token"] = state["cls_token"]
    out["embeddings.position_embeddings"] = state["pos_embed"]
    for leaf in ("weight", "bias"):
        out[f"embeddings.patch_embeddings.projection.{leaf}"] = state[f"patch_embed.proj.{leaf}"]
        out[f"layernorm.{leaf}"] = state[f"norm.{leaf}"]
        for block in range(2):
            ours, theirs = f"blocks.{block}", f"encoder.layer.{block}"
            thirds = state[f"{ours}.attn.qkv.{leaf}"].chunk(3)
            for name, third in zip(("query", "key", "value"), thirds, strict=True):
                out[f"{theirs}.attention.attention.{name}.{leaf}"] = third.contiguous()
            out[f"{theirs}.attention.output.dense.{leaf}"] = state[f"{ours}.attn.proj.{leaf}"]
            names = ("norm1", "norm2", "mlp.fc1", "mlp.fc2")
            hidden = names if dinov2 else ("layernorm_before", "layernorm_after", "intermediate.dense", "output.dense")
            for mine, yours in zip(names, hidden, strict=True):
                out[f"{theirs}.{yours}.{leaf}"] = state[f"{ours}.{mine}.{leaf}"]
    if dinov2:
        for block in range(2):
            for number in (1, 2):
                name = f"encoder.layer.{block}.layer_scale{number}.lambda1"
                out[name] = state[f"blocks.{block}.ls{number}.gamma"]
        out["embeddings.mask_token"] = torch.zeros(1, 32)
    return out


HF = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


@pytest.mark.parametrize(("kind", "prefix"), [("dinov2", ""), ("vit", ""), ("vit_mae", "vit.")])
def test_hugging_face_folders(tmp_path: Path, images: Tensor, kind: str, prefix: str) -> None:
    dinov2 = kind == "dinov2"
    model = small_vit(**({"init_values": 0.5} if dinov2 else {}))
    weights = {f"{prefix}{name}": tensor for name, tensor in huggingface_names(model, dinov2=dinov2).items()}
    if kind == "vit_mae":
        weights["decoder.decoder_embed.weight"] = torch.zeros(4, 4)
    save_file(weights, tmp_path / "model.safetensors")
    config = {"model_type": kind, **HF, **({"mlp_ratio": 4} if dinov2 else {"intermediate_size": 128})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.2] * 3}))
    loaded = load_backbone(str(tmp_path))
    assert (loaded.image_size_px, loaded.mean, loaded.std) == (32, (0.5,) * 3, (0.2,) * 3)
    with torch.no_grad():
        assert torch.allclose(loaded.tokens(images), model.forward_features(images), atol=1e-5)


def test_hugging_face_folders_that_cannot_be_mapped(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "swin"}))
    with pytest.raises(CheckpointError, match="no mapping for model_type 'swin'"):
        load_backbone(str(tmp_path))
    config.write_text(json.dumps({"model_type": "dinov2", **HF}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="a pickle, which runs code"):
        load_backbone(str(tmp_path))
    save_file(
        {"embeddings.cls_token": torch.zeros(1), "strange.weight": torch.zeros(1)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"no place for strange\.weight"):
        load_backbone(str(tmp_path))
    config.write_text(json.dumps({"model_type": "dinov2", "use_swiglu_ffn": True, **HF}))
    with pytest.raises(CheckpointError, match="SwiGLU"):
        load_backbone(str(tmp_path))


def test_an_open_clip_folder_with_a_timm_tower(tmp_path: Path) -> None:
    tower = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    vision = {"timm_model_name": "vit_tiny_patch16_224", "image_size": 224}
    config = {"model_cfg": {"vision_cfg": vision}, "preprocess_cfg": {"mean": [0.48] * 3, "std": [0.26] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    weights = {f"visual.trunk.{name}": tensor for name, tensor in tower.state_dict().items()}
    weights["text.transformer.embeddings.weight"] = torch.zeros(2, 2)
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    loaded = load_backbone(str(tmp_path))
    assert isinstance(loaded, Backbone)
    assert loaded.mean == (0.48,) * 3
    assert torch.equal(loaded.model.pos_embed, tower.pos_embed)
    config["model_cfg"]["vision_cfg"] = {"layers": 12}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="not one of timm's"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize("method", ["dinov2", "mae", None])
def test_the_default_readout_is_the_mean_of_the_patch_tokens_for_every_method(
    tmp_path: Path, method: str | None
) -> None:
    notes = {"recipe": {"method": {"name": method}}} if method else {}
    export = write_export(tmp_path / "run" / "export", small_vit(), biovfm=notes)
    for spec in (str(export), f"random:{export}"):
        backbone = load_backbone(spec)
        assert backbone.pooling() == "patch_mean"
        assert backbone.pooling("cls") == "cls"
    with pytest.raises(ConfigError, match="cls_patch_mean"):
        backbone.pooling("mean")  # type: ignore[arg-type]
