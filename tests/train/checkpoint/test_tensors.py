from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.checkpoint.material import saved, trained
from train.checkpoint.tensors import INDEX, DamageError, check_chunks, read_index

pytestmark = pytest.mark.torch

FROZEN = Path(__file__).parents[2] / "frozen" / "data" / "mae" / "checkpoints" / "step-00000003"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved(tmp_path, 1)
    return tmp_path / "step-00000001"


def test_the_index_is_json_and_lists_every_tensor(folder: Path) -> None:
    document = json.loads((folder / INDEX).read_text())
    model, optimizer = trained()
    names = {f"method.{name}" for name in model.state_dict()}
    names |= {
        f"optimizer.{name}.{key}" for name, _ in model.named_parameters() for key in ("step", "exp_avg", "exp_avg_sq")
    }
    assert set(document["tensors"]) == names
    entry = document["tensors"]["method.0.weight"]
    assert (entry["dtype"], entry["shape"]) == ("float32", [8, 8])
    assert len(optimizer.state) == 4


def test_an_index_of_an_earlier_release_is_read_and_its_sums_are_checked(tmp_path: Path) -> None:
    entries = read_index(FROZEN)
    assert entries["method.network.encoder.cls_token"].shape == (1, 1, 64)
    check_chunks(FROZEN)
    for file in FROZEN.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    chunk = entries["method.network.encoder.blocks.0.mlp.fc1.weight"].chunks[0]
    data = bytearray((tmp_path / chunk.file).read_bytes())
    data[chunk.start + chunk.length // 2] ^= 1
    (tmp_path / chunk.file).write_bytes(data)
    with pytest.raises(DamageError, match=r"method\.network\.encoder\.blocks\.0\.mlp\.fc1\.weight in __0_0\.distcp"):
        check_chunks(tmp_path)
    (tmp_path / chunk.file).write_bytes(data[: chunk.start + 10])
    with pytest.raises(DamageError, match=r"__0_0\.distcp is cut"):
        check_chunks(tmp_path)


class Opens:
    """Writes a file when it is unpickled by an unpickler that trusts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(pickle.dumps(Opens(tmp_path / "made")))
    with pytest.raises(DamageError, match=r"names posix\.mkdir"):
        read_index(tmp_path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "torch.load", "torch.distributed.checkpoint.metadata.os"])
def test_no_other_name_is_known(name: str, tmp_path: Path) -> None:
    module, _, last = name.rpartition(".")
    (tmp_path / INDEX).write_bytes(f"c{module}\n{last}\n.".encode())
    with pytest.raises(DamageError, match="which has no place in it"):
        read_index(tmp_path)


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "a/b", "..", ""])
def test_a_tensor_outside_of_the_folder_is_refused(file: str, folder: Path) -> None:
    document = json.loads((folder / INDEX).read_text())
    document["tensors"]["method.0.weight"]["chunks"][0]["file"] = file
    (folder / INDEX).write_text(json.dumps(document))
    with pytest.raises(DamageError, match="cannot be read"):
        read_index(folder)


@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: b"{" + text.encode())))
def test_any_bytes_are_an_index_or_damage(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("index")
    (folder / INDEX).write_bytes(data)
    with pytest.raises(DamageError):
        read_index(folder)


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 3)
    model, optimizer = trained(1)
    checkpoints.load(3, model, optimizer)
    wanted, moments = trained(3)
    torch.testing.assert_close(model.state_dict(), wanted.state_dict(), rtol=0, atol=0)
    for got, expected in zip(optimizer.state.values(), moments.state.values(), strict=True):
        torch.testing.assert_close(got["exp_avg_sq"], expected["exp_avg_sq"], rtol=0, atol=0)
