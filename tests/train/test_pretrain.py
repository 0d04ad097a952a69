from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from eval.encoders.encoder import load_backbone
from shards.errors import CheckpointError, ConfigError, TrainingError
from tests.train.checkpoint.material import described
from tests.train.recipes import dino_recipe, mae_recipe
from tests.train.streams import MemoryBatch, MemoryStream
from train.checkpoint import check_resumable
from train.loop import stop_on_signals
from train.methods import build_method
from train.recipe import Recipe
from train.recipe_files import load_recipe
from train.run import PretrainResult, StepReport, pretrain
from train.run_export import export_run
from train.watch import Watch

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(recipe: Recipe, out: Path, data: str = "memory", **settings: Any) -> PretrainResult:
    return pretrain(recipe, data=data, out=out, **{"stream": MemoryStream, **settings})


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


RECIPES = pytest.mark.parametrize("make", [mae_recipe, dino_recipe])


@RECIPES
def test_a_run_leaves_everything_that_it_promises(make: Any, tmp_path: Path) -> None:
    seen: list[StepReport] = []
    recipe = make(checkpoint={"every": 4, "keep_last": 2})
    result = run(recipe, tmp_path, progress=seen.append)

    assert result.finished
    assert (result.steps, result.resumed_from) == (10, 0)
    assert [report.step for report in seen] == list(range(1, 11))
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 11))
    assert result.final_loss == seen[-1].loss
    assert Recipe.model_validate(__import__("yaml").safe_load((tmp_path / "recipe.yaml").read_text())) == recipe
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000008", "step-00000010"]
    assert list((tmp_path / "tensorboard").iterdir())
    assert (tmp_path / "reconstructions.png").exists() == (make is mae_recipe)
    model = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True, num_classes=0)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 64)


@RECIPES
def test_logged_parts_add_up_to_the_loss(make: Any, tmp_path: Path) -> None:
    seen: list[StepReport] = []
    run(make(run={"steps": 3}), tmp_path, progress=seen.append)
    for report in seen:
        assert sum(report.losses.values()) == pytest.approx(report.loss, rel=1e-6)
        assert 0 <= report.stall_share < 1
        assert report.images_per_second > 0


def test_the_loss_falls(tmp_path: Path) -> None:
    seen: list[StepReport] = []
    run(
        mae_recipe(run={"steps": 60}, optim={"base_lr": 3e-3}, checkpoint={"every": 1000}),
        tmp_path,
        progress=seen.append,
    )
    first, last = seen[:10], seen[-10:]
    assert sum(r.loss for r in last) < 0.97 * sum(r.loss for r in first)


class StopAt:
    """A stream that asks for a stop, or dies, when a certain batch is taken to be learned from."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def __call__(self, *arguments: Any) -> MemoryStream:
        stream = MemoryStream(*arguments)
        inner = stream._batch
        stream._batch = lambda number: self._telling(number, inner(number))  # type: ignore[method-assign]
        return stream

    def _telling(self, number: int, batch: MemoryBatch) -> Any:
        return TellingBatch(batch, self.action) if number == self.step else batch


class TellingBatch:
    """Acts when its keys are read: by the training thread, when it takes the batch."""

    def __init__(self, batch: MemoryBatch, action: Any) -> None:
        self.views, self.epoch, self.index = batch.views, batch.epoch, batch.index
        self._keys, self._action = batch.keys, action

    @property
    def keys(self) -> tuple[str, ...]:
        self._action()
        return self._keys


def strip(line: dict[str, Any]) -> dict[str, Any]:
    timing = {"seconds", "images_per_second", "stall_share", "memory_bytes"}
    return {key: value for key, value in line.items() if key not in timing}


@RECIPES
def test_sigterm_saves_and_the_same_call_goes_on_bit_for_bit(make: Any, tmp_path: Path) -> None:
    model = {"drop_path": 0.3} if make is dino_recipe else {}
    recipe = make(run={"steps": 12}, model=model, checkpoint={"every": 100})
    run(recipe, tmp_path / "whole")
    stopped = run(recipe, tmp_path / "cut", stream=StopAt(6, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert not stopped.finished
    assert stopped.export is None
    assert stopped.steps == 7
    resumed = run(recipe, tmp_path / "cut")
    assert (resumed.resumed_from, resumed.steps, resumed.finished) == (7, 12, True)
    assert list(map(strip, lines(tmp_path / "cut"))) == list(map(strip, lines(tmp_path / "whole")))


def test_ctrl_c_saves_like_sigterm(tmp_path: Path) -> None:
    recipe = mae_recipe(run={"steps": 12}, checkpoint={"every": 100})
    before = signal.getsignal(signal.SIGINT)
    stopped = run(recipe, tmp_path, stream=StopAt(6, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert (stopped.finished, stopped.interrupted, stopped.steps) == (False, True, 7)
    assert (tmp_path / "checkpoints" / "step-00000007" / "meta.json").is_file()
    assert signal.getsignal(signal.SIGINT) == before
    resumed = run(recipe, tmp_path)
    assert (resumed.resumed_from, resumed.finished, resumed.interrupted) == (7, True, False)


def test_a_second_ctrl_c_some_seconds_later_ends_at_once() -> None:
    with stop_on_signals() as stop:
        for _ in range(2):  # torchrun passes on what the terminal has sent already
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.interrupted
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("train.loop.HURRY_SECONDS", -1.0)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)


def test_settings_that_change_on_resume_are_said_and_all_recipes_are_kept(tmp_path: Path) -> None:
    first = mae_recipe(run={"steps": 4})
    run(first, tmp_path)
    said: list[str] = []
    assert first.run.epochs is None
    second = mae_recipe(run={"steps": 6}, optim={"base_lr": 0.01})
    run(second, tmp_path, say=said.append)
    assert said == [
        "6 steps of 8 images are 0.75 epochs of 64 images; effective learning rate 0.01",
        "changed from step 4 on: optim.base_lr was 0.001, now 0.01",
        "changed from step 4 on: run.steps was 4, now 6",
    ]
    run(second, tmp_path, say=said.append)
    assert len(said) == 4
    parts = {path.name: load_recipe(path) for path in (tmp_path / "recipes").iterdir()}
    assert parts == {"from-00000000.yaml": first, "from-00000004.yaml": second}
    assert load_recipe(tmp_path / "recipe.yaml") == second


def test_a_run_goes_on_from_the_whole_checkpoint_before_a_damaged_one(tmp_path: Path) -> None:
    recipe = mae_recipe(checkpoint={"every": 4})
    run(recipe, tmp_path / "whole")
    run(recipe, tmp_path / "cut")
    path = tmp_path / "cut" / "checkpoints" / "step-00000010" / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-1000])
    said: list[str] = []
    assert run(recipe, tmp_path / "cut", say=said.append).resumed_from == 8
    assert "step-00000010 is damaged" in said[0]
    assert list(map(strip, lines(tmp_path / "cut"))) == list(map(strip, lines(tmp_path / "whole")))
    path.write_bytes(b"")
    assert (
        json.loads((export_run(tmp_path / "cut", say=said.append) / "config.json").read_text())["biovfm"]["step"] == 8
    )
    with pytest.raises(CheckpointError, match=r"step-00000010 is damaged: __0_0\.distcp has 0 bytes"):
        export_run(tmp_path / "cut", step=10)


def test_a_second_live_process_is_refused(tmp_path: Path) -> None:
    recipe = mae_recipe(run={"steps": 3})
    refused: list[str] = []

    def again(_: StepReport) -> None:
        with pytest.raises(CheckpointError, match="is in use by process") as caught:
            run(recipe, tmp_path)
        refused.append(str(caught.value))

    run(recipe, tmp_path, progress=again)
    assert len(refused) == 3
    assert not (tmp_path / ".lease").exists()


def test_a_run_whose_folder_was_taken_over_stops_without_a_word_in_its_checkpoints(tmp_path: Path) -> None:
    def take_over(report: StepReport) -> None:
        if report.step == 2:
            (lease,) = (tmp_path / ".lease").iterdir()
            (tmp_path / ".lease" / f"{int(lease.name) + 1:08d}").write_text("{}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.checkpoint.lease.BEAT_SECONDS", 0.05)
        with pytest.raises(CheckpointError, match="was taken over by"):
            run(mae_recipe(run={"steps": 2000}, checkpoint={"every": 5000}), tmp_path, progress=take_over)
    assert not (tmp_path / "checkpoints").exists()


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_is_one_line_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    def full(report: StepReport) -> None:
        if report.step == 5:
            while not (tmp_path / "checkpoints" / "step-00000004").exists():
                time.sleep(0.01)
            patch.setattr(FileSystemWriter, "write_data", no_space)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CheckpointError, match="the disk is full") as caught:
        run(mae_recipe(checkpoint={"every": 4}, run={"steps": 5000}), tmp_path, progress=full)
    assert "the last good one is step-00000004" in str(caught.value)
    assert run(mae_recipe(checkpoint={"every": 4}), tmp_path).resumed_from == 4


def test_files_of_a_run_have_ordinary_modes(tmp_path: Path) -> None:
    run(mae_recipe(), tmp_path)
    odd = [path for path in tmp_path.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) != 0o644]
    assert not odd


def test_a_crash_goes_on_from_the_last_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    def die() -> None:
        raise RuntimeError("killed")

    recipe = dino_recipe(run={"steps": 12}, checkpoint={"every": 5})
    run(recipe, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(recipe, tmp_path / "cut", stream=StopAt(7, die))
    assert len(lines(tmp_path / "cut")) == 7
    resumed = run(recipe, tmp_path / "cut")
    assert resumed.resumed_from == 5
    assert list(map(strip, lines(tmp_path / "cut"))) == list(map(strip, lines(tmp_path / "whole")))


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    first = run(mae_recipe(), tmp_path)
    again = run(mae_recipe(), tmp_path)
    assert (again.resumed_from, again.final_loss, again.export) == (10, None, first.export)


def test_a_half_written_checkpoint_is_none(tmp_path: Path) -> None:
    run(mae_recipe(checkpoint={"every": 5}), tmp_path)
    (tmp_path / "checkpoints" / "step-00000010" / "meta.json").unlink()
    assert run(mae_recipe(checkpoint={"every": 5}), tmp_path).resumed_from == 5


@RECIPES
def test_accumulation_gives_the_loss_of_the_whole_batch(make: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": {"centering": "ema"}} if make is dino_recipe else {}
    for accumulate in (1, 2):
        run(make(**settings, run={"steps": 1, "accumulate": accumulate}), tmp_path / str(accumulate))
    whole, halves = (lines(tmp_path / name)[0] for name in "12")
    for key in whole:
        if key.startswith(("loss", "grad_norm")):
            assert halves[key] == pytest.approx(whole[key], rel=2e-4), key


def test_checkpointed_activations_change_nothing(tmp_path: Path) -> None:
    for flag in (False, True):
        run(dino_recipe(run={"steps": 2, "checkpoint_activations": flag}), tmp_path / str(flag))
    plain, recomputed = lines(tmp_path / "False")[-1], lines(tmp_path / "True")[-1]
    assert recomputed["loss"] == pytest.approx(plain["loss"], rel=1e-6)


def test_bf16_stays_near_float32(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        run(dino_recipe(run={"steps": 2, "precision": precision}), tmp_path / precision)
    exact, rough = lines(tmp_path / "fp32")[0], lines(tmp_path / "bf16")[0]
    assert rough["loss"] == pytest.approx(exact["loss"], rel=0.02)
    assert rough["loss"] != exact["loss"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sharding_on_one_rank_changes_nothing_much(precision: str, tmp_path: Path) -> None:
    for parallel in ("ddp", "fsdp"):
        settings = {"steps": 3, "precision": precision, "parallel": parallel, "accumulate": 2}
        run(dino_recipe(run=settings, model={"drop_path": 0.3}), tmp_path / parallel)
    plain, sharded = lines(tmp_path / "ddp")[-1], lines(tmp_path / "fsdp")[-1]
    assert sharded["loss"] == pytest.approx(plain["loss"], rel=1e-6 if precision == "fp32" else 0.02)


def test_the_monitor_sees_a_plain_timm_model_in_evaluation_mode(tmp_path: Path) -> None:
    called: list[int] = []

    def monitor(model: nn.Module, *, step: int) -> Mapping[str, float]:
        assert not model.training
        assert type(model) is timm.models.VisionTransformer
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
        called.append(step)
        return {"knn": 0.5}

    run(mae_recipe(run={"steps": 5}, watch={"monitor_every": 2}), tmp_path, monitor=monitor)
    assert called == [2, 4, 5]
    assert [line["step"] for line in lines(tmp_path) if "monitor_knn" in line] == called


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"size": "tiny"}}, "model.size was nano, the recipe says tiny"),
        ({"method": {"mask_ratio": 0.5}}, "method.mask_ratio was 0.75"),
        ({"seed": 5}, "seed was 0"),
        ({"run": {"global_batch": 16}}, "run.global_batch was 8"),
    ],
)
def test_another_runs_checkpoint_is_refused_before_any_work(change: Any, message: str, tmp_path: Path) -> None:
    run(mae_recipe(run={"steps": 1}), tmp_path)

    def no_stream(*_: Any) -> Any:
        pytest.fail("opened the data")

    with pytest.raises(CheckpointError, match=message):
        run(mae_recipe(**{"run": {"steps": 1}, **change}), tmp_path, stream=no_stream)


def test_other_samples_are_refused(tmp_path: Path) -> None:
    run(mae_recipe(run={"steps": 1}), tmp_path)
    with pytest.raises(CheckpointError, match=r"digest sha256:memory, here sha256:another"):
        run(mae_recipe(run={"steps": 2}), tmp_path, data="sha256:another")


def test_a_length_in_epochs_follows_the_data(tmp_path: Path) -> None:
    recipe = mae_recipe(run={"steps": 0, "epochs": 1.5})
    assert run(recipe, tmp_path).steps == 12
    assert load_recipe(tmp_path / "recipe.yaml").run.steps == 12
    assert run(recipe, tmp_path).resumed_from == 12


def test_settings_without_effect_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.drop_path=0\.1 has no effect"):
        run(mae_recipe(model={"drop_path": 0.1}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_an_earlier_release_with_such_a_setting_goes_on_without_it(tmp_path: Path) -> None:
    run(mae_recipe(run={"steps": 2}), tmp_path)
    before = described(1, recipe=mae_recipe(model={"drop_path": 0.1}).model_dump(mode="json"))
    check_resumable(before, mae_recipe(), where=tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("drop_path: 0.0", "drop_path: 0.1"))
    assert export_run(tmp_path).is_dir()


@pytest.mark.parametrize(
    "recipe", [mae_recipe(run={"steps": 2}), dino_recipe(run={"steps": 2}, model={"registers": 3})], ids=["mae", "dino"]
)
def test_plain_timm_gives_what_the_probe_reads(recipe: Recipe, tmp_path: Path) -> None:
    export = run(recipe, tmp_path).export
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        got = timm.create_model(f"local-dir:{export}", pretrained=True, num_classes=0).eval()(images)
        backbone = load_backbone(str(export))
        want = backbone.features(images, backbone.pooling("auto"))
        patches = backbone.tokens(images)[:, 1 + recipe.model.registers :]
    torch.testing.assert_close(want, patches.mean(1))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not divide into 1 ranks x 1 .* use run.global_batch=8"):
        run(mae_recipe(run={"global_batch": 10}), tmp_path)


def test_a_fresh_start_refuses_an_old_run(tmp_path: Path) -> None:
    run(mae_recipe(run={"steps": 1}), tmp_path)
    with pytest.raises(ConfigError, match="holds checkpoints up to step 1"):
        run(mae_recipe(run={"steps": 1}), tmp_path, resume=False)


def test_start_weights_reach_student_and_teacher(tmp_path: Path) -> None:
    from train.methods import build_method

    first = run(mae_recipe(run={"steps": 2}), tmp_path / "first")
    weights = timm.create_model(f"local-dir:{first.export}", pretrained=True, num_classes=0).state_dict()
    method = build_method(dino_recipe(model={"init_from": str(first.export), "layer_scale": None}))
    for network in (method.network, method.teacher):  # type: ignore[attr-defined]
        torch.testing.assert_close(network.backbone.blocks[1].mlp.fc1.weight, weights["blocks.1.mlp.fc1.weight"])


def test_start_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    first = run(mae_recipe(run={"steps": 1}), tmp_path / "first")
    recipe = mae_recipe(model={"size": "tiny", "init_from": str(first.export)})
    with pytest.raises(ConfigError, match="this model needs"):
        run(recipe, tmp_path / "second")


def test_export_of_an_older_checkpoint(tmp_path: Path) -> None:
    run(dino_recipe(checkpoint={"every": 5}), tmp_path / "run")
    folder = export_run(tmp_path / "run", step=5, out=tmp_path / "five")
    assert json.loads((folder / "config.json").read_text())["biovfm"]["step"] == 5
    newest = export_run(tmp_path / "run", out=tmp_path / "ten")
    run_export = timm.create_model(f"local-dir:{tmp_path / 'run' / 'export'}", pretrained=True, num_classes=0)
    same = timm.create_model(f"local-dir:{newest}", pretrained=True, num_classes=0)
    torch.testing.assert_close(same.state_dict(), run_export.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="there are: 5, 10"):
        export_run(tmp_path / "run", step=7)


@pytest.mark.parametrize("recipe", [mae_recipe(), dino_recipe()], ids=["mae", "dinov2"])
def test_export_of_step_0_is_the_network_as_training_begins(tmp_path: Path, recipe: Recipe) -> None:
    run(recipe, tmp_path / "run")
    start = timm.create_model(
        f"local-dir:{export_run(tmp_path / 'run', step=0, out=tmp_path / 'start')}", pretrained=True
    )
    began = build_method(recipe).export_backbone().state_dict()
    for name, value in start.state_dict().items():
        torch.testing.assert_close(value, began[name], rtol=0, atol=0)
    trained = timm.create_model(f"local-dir:{tmp_path / 'run' / 'export'}", pretrained=True, num_classes=0)
    assert not torch.equal(trained.state_dict()["blocks.0.mlp.fc1.weight"], began["blocks.0.mlp.fc1.weight"])


def test_non_finite_steps_are_skipped_then_stop_the_run(tmp_path: Path) -> None:
    seen: list[StepReport] = []
    recipe = mae_recipe(optim={"base_lr": 1e30, "warmup": 0.0}, watch={"non_finite_patience": 2})
    with pytest.raises(TrainingError, match=r"not finite for 2 steps in a row.*lower optim.base_lr"):
        run(recipe, tmp_path, progress=seen.append)
    assert seen[-1].skipped


HEALTHY = {"feature_std": 0.8, "target_information": 2.0, "prototypes_used": 40.0, "teacher_entropy": 1.0}


@pytest.mark.parametrize(
    ("sick", "message"),
    [({"feature_std": 0.001}, "same features"), ({"target_information": 0.0}, "targets are the same")],
)
def test_collapse_stops_the_run_with_an_explanation(sick: dict[str, float], message: str) -> None:
    watch = Watch(dino_recipe(run={"steps": 100}, watch={"collapse_patience": 3, "collapse_after": 0.1}))
    for step in range(10):
        watch.alive(HEALTHY | sick, step=step)
    for step in (10, 11):
        watch.alive(HEALTHY | sick, step=step)
    watch.alive(HEALTHY, step=12)
    for step in (13, 14):
        watch.alive(HEALTHY | sick, step=step)
    with pytest.raises(TrainingError, match=message):
        watch.alive(HEALTHY | sick, step=15)


def test_reports_are_flat_json() -> None:
    report = StepReport(
        step=1, steps=2, epoch=0, batch=0, keys_checksum=1, loss=1.0, losses={"mae": 1.0}, lr=0.1, weight_decay=0.0,
        images_per_second=1.0, stall_share=0.0, seconds=1.0, memory_bytes=1,
    )  # fmt: skip
    assert replace(report, monitored={"knn": 0.5}).flat()["monitor_knn"] == 0.5
    assert report.flat()["loss_mae"] == 1.0


def test_a_run_goes_on_from_its_mirror_on_another_machine(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    settings = {"checkpoint": {"every": 3, "keep_last": 2, "url": str(mirror)}, "run": {"steps": 10}}
    run(mae_recipe(**settings), tmp_path / "whole")
    assert sorted(path.name for path in mirror.iterdir()) == ["step-00000009", "step-00000010"]
    (mirror / "step-00000010" / "meta.json").unlink()  # an upload that was cut off
    resumed = run(mae_recipe(**settings), tmp_path / "elsewhere")
    assert (resumed.resumed_from, resumed.finished) == (9, True)
    assert lines(tmp_path / "elsewhere")[-1]["loss"] == lines(tmp_path / "whole")[-1]["loss"]
    assert (mirror / "step-00000010" / "meta.json").is_file()
