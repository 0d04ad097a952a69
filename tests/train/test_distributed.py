"""Two gloo processes against one: the fixtures, DDP, FSDP2, and a run handed from one rank to two and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shards.errors import ConfigError
from shards.stream.plan import plan_of
from tests.train import ranks
from tests.train.recipes import mae_recipe
from train.distributed import check_batch

pytestmark = [pytest.mark.slow, pytest.mark.torch]
NAMES = pytest.mark.parametrize("name", list(ranks.recipes()))
PARALLEL = pytest.mark.parametrize("parallel", ["ddp", "fsdp"])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process trains everything whole and, for the relay, to step 2; then two processes do their part."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ranks")
    for name, recipe in ranks.recipes().items():
        ranks.train(recipe, folder / f"{name}-one")
        ranks.train(recipe, folder / f"{name}-relay-ddp", until=2)
        shutil.copytree(folder / f"{name}-relay-ddp", folder / f"{name}-relay-fsdp")
    ranks.launch(folder)
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_numbers(got: Path, want: Path, *, tolerance: float) -> None:
    ours, theirs = lines(got), lines(want)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert [line["keys_checksum"] for line in ours] == [line["keys_checksum"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for key in one:
            if key.startswith(("loss", "grad_norm", "lr")):
                assert one[key] == pytest.approx(other[key], rel=tolerance, abs=tolerance), (one["step"], key)


@NAMES
@PARALLEL
def test_two_ranks_give_the_numbers_of_one(name: str, parallel: str, out: Path) -> None:
    assert_same_numbers(out / f"{name}-{parallel}", out / f"{name}-one", tolerance=1e-5)
    got = load_file(out / f"{name}-{parallel}" / "export" / "model.safetensors")
    want = load_file(out / f"{name}-one" / "export" / "model.safetensors")
    for key, value in want.items():
        if key.endswith("qkv.bias"):  # the key's bias has no true gradient: AdamW blows up its rounding noise
            continue
        torch.testing.assert_close(got[key], value, rtol=1e-5, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


@NAMES
@PARALLEL
def test_one_rank_then_two_then_one_is_one_run(name: str, parallel: str, out: Path, tmp_path: Path) -> None:
    relay = tmp_path / "relay"
    shutil.copytree(out / f"{name}-relay-{parallel}", relay)
    result = ranks.train(ranks.recipes()[name], relay)
    assert result is not None
    assert result.resumed_from == 4
    assert_same_numbers(relay, out / f"{name}-one", tolerance=1e-4)


@pytest.mark.parametrize("name", ranks.COMPILED)
def test_sharded_and_compiled_ranks_give_the_numbers_of_one_plain_process(name: str, out: Path) -> None:
    assert_same_numbers(out / f"{name}-compiled", out / f"{name}-one", tolerance=1e-4)


@pytest.mark.parametrize("name", ranks.COMPILED)
def test_a_checkpoint_of_compiled_shards_goes_on_in_one_process(name: str, out: Path, tmp_path: Path) -> None:
    relay = tmp_path / "relay"
    shutil.copytree(out / f"{name}-relay-compiled", relay)
    newest = relay / "checkpoints" / "step-00000004"
    assert json.loads((newest / "meta.json").read_text())["world_size"] == 2
    assert len(list(newest.glob("*.distcp"))) == 2
    result = ranks.train(ranks.recipes()[name], relay)
    assert result is not None
    assert result.resumed_from == 4
    assert_same_numbers(relay, out / f"{name}-one", tolerance=1e-4)


def near(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want.reshape(got.shape), rtol=1e-4, atol=1e-6)


def test_fixtures_with_rows_spread_unevenly_over_two_ranks(out: Path) -> None:
    got = np.load(out / "targets.npz")
    dino, ibot, koleo = (dict(np.load(ranks.FIXTURES / f"{n}.npz")) for n in ("dino_loss", "ibot_loss", "koleo_loss"))
    order = [0, 1, 4, 2, 3, 5, 6, 7]
    swapped_back = [4, 5, 6, 7, 0, 1, 2, 3]
    for mode in ("centering", "sinkhorn"):
        near(got[f"ibot_{mode}_loss"], ibot[f"{mode}_loss"])
        probabilities = dino[f"{mode}_teacher_probs_swapped"].reshape(8, 32)[swapped_back]
        near(got[f"dino_{mode}_probabilities"], probabilities[order])
    near(got["ibot_center"], ibot["centering_center_after"])
    near(got["dino_center"], dino["centering_center_after"])
    near(got["koleo"], koleo["two_crops_loss_weighted"])


def test_ranks_with_other_recipes_are_all_told_before_any_work(out: Path) -> None:
    told = {(out / f"refused-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(told) == 1
    assert "ranks 0 and 1 have other recipes: optim.base_lr 0.001 and 0.002 — " in told.pop()
    assert not (out / "refused").exists()


def test_ranks_with_other_data_are_all_told_before_the_first_step(out: Path) -> None:
    told = {(out / f"other-data-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(told) == 1
    said = told.pop()
    for rank in (0, 1):
        digests = plan_of(str(out / f"data-{rank}"))[1].digests
        assert any(digest in said for digest in (digests.samples, digests.order) if digest)
    assert not (out / "other-data" / "checkpoints").exists()
    assert not (out / "other-data" / "metrics.jsonl").exists()


def test_ranks_with_other_kernels_train_with_those_that_all_have(out: Path) -> None:
    first, second = ((out / f"kernels-{rank}.txt").read_text().splitlines() for rank in (0, 1))
    assert "crops and augmentation on the device by torch: on rank 1, Triton is not installed" in first
    assert first[-1] == second[-1] == "uses torch"
    assert len(lines(out / "kernels")) == 2


def test_kernels_that_a_rank_asks_for_in_vain_stop_all_ranks(out: Path) -> None:
    told = {(out / f"no-kernels-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(told) == 1
    assert "BIOVFM_KERNELS=triton: cpu is no GPU" in told.pop()


def test_a_compiler_that_a_rank_lacks_stops_all_ranks(out: Path) -> None:
    told = {(out / f"no-compiler-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(told) == 1
    assert "run.compile=true: on rank 1, g++ is not found — install g++" in told.pop()
    assert not (out / "no-compiler").exists()


def test_checkpoints_of_two_ranks_are_whole_and_few(out: Path) -> None:
    folder = out / "mae-fsdp" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000004", "step-00000006"]
    assert json.loads((folder / "step-00000006" / "meta.json").read_text())["world_size"] == 2


@pytest.mark.parametrize(("batch", "size", "nearest"), [(8, 3, 12), (12, 2, 16), (4, 2, 8)])
def test_a_batch_that_the_ranks_do_not_divide(batch: int, size: int, nearest: int) -> None:
    with pytest.raises(ConfigError, match=rf"{batch} does not divide into {size} ranks.*run.global_batch={nearest}"):
        check_batch(mae_recipe(run={"global_batch": batch}), size)
