from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from tests.train.recipes import dino_recipe
from train.backbone import DropPathRows, build_backbone
from train.export import timm_model, write_export
from train.recipe import ModelConfig

pytestmark = pytest.mark.torch

VARIANTS = [
    {},
    {"layer_scale": 0.5},
    {"registers": 4, "layer_scale": 0.5},
    {"registers": 2, "ffn": "swiglu"},
    {"ffn": "swiglu"},
    {"in_chans": 1},
]


def randomised(backbone: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.05)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_an_export_is_the_same_network_in_plain_timm(variant: dict[str, object], tmp_path: Path) -> None:
    recipe = dino_recipe(model={"layer_scale": None, **variant})
    backbone = build_backbone(recipe.model, image_size_px=32, mask_token=True)
    randomised(backbone)
    write_export(backbone.state_dict(), recipe, tmp_path, step=7, dataset="data")
    images = torch.randn(2, recipe.model.in_chans, 32, 32)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        want = backbone.eval().encode(images)
        torch.testing.assert_close(loaded.forward_features(images), want, rtol=1e-5, atol=1e-5)
        direct = timm_model(backbone.state_dict(), recipe).eval()
        torch.testing.assert_close(direct.forward_features(images), want, rtol=1e-5, atol=1e-5)
    assert loaded.num_prefix_tokens == 1 + recipe.model.registers
    assert loaded.pretrained_cfg["input_size"] == (recipe.model.in_chans, 32, 32)
    assert len(loaded.pretrained_cfg["mean"]) == recipe.model.in_chans
    assert json.loads((tmp_path / "config.json").read_text())["biovfm"]["step"] == 7
    assert "data" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("size", "patch", "millions"),
    [("tiny", 16, 5.52), ("small", 16, 21.67), ("base", 16, 85.80), ("large", 16, 303.30), ("huge", 14, 630.76)],
)
def test_sizes_have_the_published_numbers_of_parameters(size: str, patch: int, millions: float) -> None:
    with torch.device("meta"):
        backbone = build_backbone(ModelConfig(size=size, patch_size=patch), image_size_px=224)  # type: ignore[arg-type]
    assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_swiglu_has_the_width_of_dinov2() -> None:
    with torch.device("meta"):
        backbone = build_backbone(ModelConfig(size="large", patch_size=14, ffn="swiglu"), image_size_px=224)
    assert tuple(backbone.blocks[0].mlp.fc1.weight.shape) == (2 * 2736, 1024)
    assert tuple(backbone.blocks[0].mlp.fc2.weight.shape) == (1024, 2736)


def test_rows_left_out_by_drop_path_pass_through() -> None:
    backbone = build_backbone(ModelConfig(size="nano", patch_size=8), image_size_px=16)
    randomised(backbone)
    tokens = torch.randn(4, 5, 64)
    every = torch.arange(4).expand(4, -1)
    full = DropPathRows(rows=every, scale=1.0)
    torch.testing.assert_close(backbone.run_blocks(tokens, drop=full), backbone.run_blocks(tokens))
    some = backbone.run_blocks(tokens, drop=DropPathRows(rows=torch.tensor([[0, 2]] * 4), scale=2.0))
    torch.testing.assert_close(some[1], backbone.norm(tokens)[1])
    assert not torch.allclose(some[0], backbone.norm(tokens)[0])


def test_initialisation_follows_the_seed_alone() -> None:
    from train.methods import build_method

    torch.manual_seed(123)
    first = build_method(dino_recipe()).state_dict()
    torch.rand(7)
    again, other = build_method(dino_recipe()).state_dict(), build_method(dino_recipe(seed=1)).state_dict()
    key = "network.backbone.blocks.0.attn.qkv.weight"
    assert torch.equal(first[key], again[key])
    assert not torch.equal(first[key], other[key])
    assert torch.equal(first[key], first[key.replace("network", "teacher")])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_embedded_by_a_product_as_by_the_convolution(channels: int, layout: torch.memory_format) -> None:
    backbone = build_backbone(ModelConfig(size="nano", patch_size=8, in_chans=channels), image_size_px=32)
    randomised(backbone)
    images = torch.randn(3, channels, 32, 32).contiguous(memory_format=layout)
    torch.testing.assert_close(backbone._embed_by_product(images), backbone.embed_patches(images))
