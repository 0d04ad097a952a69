"""Backbones on object storage: runs, exports, bare weights, and what is not there or damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.encoders import remote_weights
from eval.encoders.encoder import load_backbone
from shards.errors import CheckpointError
from shards.store import Store, open_store
from tests.train.recipes import mae_recipe
from train.backbone import build_backbone
from train.export import write_export

pytestmark = [pytest.mark.torch, pytest.mark.s3]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    recipe = mae_recipe()
    trained = build_backbone(recipe.model, image_size_px=32)
    return write_export(trained.state_dict(), recipe, tmp_path / "run" / "export", step=5)


@pytest.fixture
def store(bucket: str, export: Path) -> Store:
    """A run with its export and the descriptions of two checkpoints; nothing of another test is remembered."""
    store = open_store(f"{bucket}/run")
    for path in export.iterdir():
        store.put_if_absent(f"export/{path.name}", path)
    for step in (5, 6):
        text = json.dumps({"step": step, "digest": f"digest-{step}", "code_version": "1.0"})
        store.put_if_absent(f"checkpoints/step-{step:08d}/meta.json", text.encode())
    remote_weights._folder.cache_clear()
    remote_weights._file.cache_clear()
    return store


def test_each_way_to_name_it_gives_the_same_network(store: Store, export: Path) -> None:
    here = load_backbone(str(export))
    for spec in (store.url, f"{store.url}/", f"{store.url}/export"):
        there = load_backbone(spec)
        assert (there.digest, there.spec) == (here.digest, spec)
    assert load_backbone(store.url).metadata["samples_digest"] == "digest-5"
    assert load_backbone(f"random:{store.url}", seed=1).digest != here.digest
    store.put_if_absent("bare/weights.safetensors", export / "model.safetensors")
    config = json.loads((export / "config.json").read_text())
    size = config["model_args"]["img_size"]
    assert size == 32
    with pytest.raises(CheckpointError, match="there is no"):
        load_backbone(f"vit_base_patch16_224@{store.url}/bare/other.safetensors")
    with pytest.raises(CheckpointError):  # the weights are read; they are of a smaller network
        load_backbone(f"vit_base_patch16_224@{store.url}/bare/weights.safetensors")


def test_damaged_weights_are_refused(store: Store) -> None:
    data = bytearray(store.read("export/model.safetensors"))
    data[-1] ^= 1
    store.replace("export/model.safetensors", bytes(data))
    with pytest.raises(CheckpointError, match="checksum"):
        load_backbone(store.url)


def test_a_run_without_an_export_says_what_writes_it(store: Store) -> None:
    store.delete([item.path for item in store.list("export/")])
    with pytest.raises(CheckpointError, match=f"biovfm export {store.url}"):
        load_backbone(store.url)
