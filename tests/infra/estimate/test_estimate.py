"""Estimates of runs: operations against published counts, figures against their formulas, mistakes in one line."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from infra.cli import main
from infra.estimate.constants import Constants, read_constants
from infra.estimate.figures import Figure, Job, estimate
from infra.estimate.operations import dinov2_operations, encoder_forward, mae_operations

PAPER = Job(images=21e6, method="mae", size="base", nodes=8, gpus=8, batch=2048, steps=125_000)


def figures(job: Job = PAPER, **constants: float) -> dict[str, Figure]:
    return {figure.name: figure for figure in estimate(job, read_constants(None, {}, **constants))}


def test_operations_of_known_networks() -> None:
    assert encoder_forward(768, 12, 197) / 1e9 == pytest.approx(2 * 17.5, rel=0.02)  # ViT-B/16: 17.5 GMAC
    assert encoder_forward(384, 12, 197) / 1e9 == pytest.approx(2 * 4.6, rel=0.02)
    assert mae_operations("base") < 0.6 * 3 * encoder_forward(768, 12, 197)
    assert mae_operations("base") < mae_operations("large") < dinov2_operations("large")


def test_the_papers_run_follows_from_its_numbers() -> None:
    found = figures(image_bytes=30_000)
    assert found["epochs"].value == pytest.approx(12.19, abs=0.01)
    assert found["index"].value == pytest.approx(1.1, rel=0.02)
    assert found["GPU-hours"].value == pytest.approx(64 * found["training"].value)
    assert found["shards"].value * 64 * 2**20 == pytest.approx(found["dataset"].value * 1e12, rel=1e-3)
    parts = ("ingest", "GPUs", "storage", "requests", "transfer")
    assert found["cost in all"].value == pytest.approx(sum(found[f"cost of {name}"].value for name in parts))
    assert all(figure.formula for figure in found.values())


def test_the_papers_run_is_what_a_calculator_says() -> None:
    """2,048 × 125,000 = 256 million images, 12.19 times 21 million, of 30,000 + 2,304 bytes."""
    found = {name: figure.value for name, figure in figures(transfer_price=0.02).items()}
    assert found["dataset"] == pytest.approx(0.678384)
    assert found["shards"] == 10_109  # 678.384e9 / 67,108,864 = 10,108.7
    assert found["ingest"] == pytest.approx(134.17, abs=0.01)
    assert found["cost of ingest"] == pytest.approx(6.71, abs=0.01)
    # Encoder on 50 tokens 8.586, decoder on 197 10.551, embedding, projection and prediction 0.251 GFLOP, three times.
    assert found["operations"] == pytest.approx(3 * (8.586 + 10.551 + 0.251), rel=1e-3)
    assert found["speed of a GPU"] == pytest.approx(0.3 * 989e3 / found["operations"])
    assert found["GPU-hours"] == pytest.approx(256e6 / found["speed of a GPU"] / 3600)
    assert found["cost of GPUs"] == pytest.approx(2.5 * found["GPU-hours"])
    assert found["cost of storage"] == pytest.approx(15.60, abs=0.01)
    assert found["read in all"] == pytest.approx(256e6 * 32_304 * 1.1 / 1e12)
    assert found["read requests"] == pytest.approx(8_675_391, abs=1)
    assert found["cost of requests"] == pytest.approx(3.470 + 0.0505, abs=0.001)
    assert found["cost of transfer"] == pytest.approx(9_096.8 * 0.02, abs=0.01)
    assert found["cores of a node"] == pytest.approx(8 * found["speed of a GPU"] * (0.0012 + 0.006 * 0.050176))


def test_more_gpus_take_less_time_and_the_same_gpu_hours() -> None:
    once, twice = figures(), figures(Job(**{**{f.name: getattr(PAPER, f.name) for f in fields(PAPER)}, "nodes": 16}))
    assert twice["training"].value == pytest.approx(once["training"].value / 2)
    assert twice["GPU-hours"].value == pytest.approx(once["GPU-hours"].value)
    assert twice["cores of a node"].value == pytest.approx(once["cores of a node"].value)


def test_a_measured_speed_takes_the_place_of_operations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--images-per-second", "1000", "--nodes", "1", "--gpus", "8", "--json"]) == 0
    found = {figure["name"]: figure for figure in json.loads(capsys.readouterr().out)["figures"]}
    assert found["speed of all"]["value"] == 8000
    assert found["speed of a GPU"]["formula"] == "measured"
    assert found["training"]["value"] == pytest.approx(2048 * 125_000 / 8000 / 3600)


def test_every_figure_and_constant_is_printed_with_its_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = tmp_path / "measured.json"
    measured.write_text('{"decode_core_seconds_per_megapixel": 0.01}')
    assert (
        main(["plan", "--model", "vit-large", "--method", "dinov2", "--epochs", "3", "--measured", str(measured)]) == 0
    )
    text = capsys.readouterr().out
    for item in fields(Constants):
        assert item.name in text
    assert "decode_core_seconds_per_megapixel  0.01" in text
    assert "given" in text
    assert "3  " in next(line for line in text.splitlines() if line.startswith("epochs"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--images", "0"], "--images 0.0 is not positive"),
        (["--steps", "0"], "--steps 0 is not positive"),
        (["--steps", "5", "--epochs", "1"], "say the same thing"),
        (["--batch", "100"], "use a multiple of 8"),
        (["--image-px", "225"], "use --image-px 240"),
        (["--utilisation", "-1"], "--utilisation is -1"),
        (["--utilisation", "30"], "--utilisation is 30 — give a share"),
        (["--image-bytes", "nan"], "--image-bytes is nan"),
        (["--epochs", "0"], "--epochs 0.0 is not positive"),
        (["--epochs", "inf"], "--epochs inf is more than any run has"),
        (["--images", "nan", "--epochs", "1"], "--images nan is not positive"),
        (["--images", "1e15", "--epochs", "1e15"], "more than any run has"),
        (["--batch", "0", "--epochs", "1"], "--batch 0 is not positive"),
        (["--epochs", "1e14"], "takes 1.03e+18 steps, more than any run has"),
        (["--images", "0.5"], "--images 0.5 is no whole number of images — use --images 1"),
        (["--images", "2.5e0"], "--images 2.5 is no whole number of images — use --images 2"),
        (["--batch", "4000000000"], "--batch 4000000000 is more than any run has — give at most 16,777,216"),
        (["--ranks", "0"], "--ranks 0 is not positive"),
        (["--ranks", "65537"], "give at most 65,536"),
        (["--nodes", "100000"], "--nodes 100000 --gpus 8 are 800000 GPUs"),
        (["--measured", "nothing.json"], "cannot read nothing.json"),
    ],
)
def test_mistakes_are_one_line(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *more]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def report(*parts: tuple[str, dict[str, object]], card: str = "NVIDIA A100-SXM4-80GB") -> str:
    device = "cuda:0" if card else "cpu"
    named = [{"name": name, "figures": figures} for name, figures in parts]
    return json.dumps({"ok": True, "device": device, "card": card, "parts": named})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "nests its values too deep"),
        ("[1]", "holds no JSON object"),
        ('{"decode": 1}', ": unknown constant 'decode'"),
        ('{"peak_flops": 0}', ": peak_flops is 0"),
        ('{"image_bytes": "x"}', ": image_bytes is 'x'"),
        ('{"image_bytes": true}', ": image_bytes is True"),
        ('{"image_bytes": NaN}', ": image_bytes is nan"),
        ('{"image_bytes": 1' + 400 * "0" + "}", ": image_bytes is 1000000"),
        ('{"image_bytes": 1e-300}', ": image_bytes is 1e-300"),
        ('{"image_bytes": ' + 900 * "[" + 900 * "]" + "}", ": image_bytes is [[["),
        ('{"utilisation": 30}', ": utilisation is 30 — give a share"),
        ('{"read_amplification": 0.5}', ": read_amplification is 0.5 — give at least 1"),
        (report(), "no rate of training steps"),
        (report(("mae nano, resident", {"images_per_second": 112.0}), card=""), "no rate of training steps"),
        (report(("mae tiny, resident", {"images_per_second": 112.0}), card="Other"), "says nothing of mae base"),
        (report(("dinov2 base, resident", {"images_per_second": 1.0, "mfu": 0.3})), "says nothing of mae base"),
        (report(("mae base, resident", {"images_per_second": 0})), ": images_per_second of 'mae base, resident' is 0"),
        (
            report(("mae base, resident", {"images_per_second": "a"})),
            ": images_per_second of 'mae base, resident' is 'a'",
        ),
        (
            report(("mae large, resident", {"images_per_second": 1.0, "mfu": 1.2})),
            ": mfu of 'mae large, resident' is 1.2",
        ),
        ('{"parts": 3, "device": "x"}', "is no report"),
        ('{"parts": [{"name": "mae base, resident"}]}', "is no report"),
    ],
)
def test_files_of_constants_and_reports_are_checked(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "measured.json"
    path.write_text(text)
    assert main(["plan", "--measured", str(path)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert f"{path}{said}" in told or not said.startswith(":")
    assert told.startswith(f"biovfm: {path}")
    assert told.count("\n") == 1


def test_a_bad_rate_of_another_model_does_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    bad = ("mae tiny, resident", {"images_per_second": 20_000.0, "mfu": 0.0})
    path.write_text(report(bad, ("mae base, resident", {"images_per_second": 900.0, "mfu": 0.25})))
    assert main(["plan", "--measured", str(path), "--model", "vit-base"]) == 0
    assert main(["plan", "--measured", str(path), "--model", "vit-large"]) == 0
    assert "900" in capsys.readouterr().out


def test_constants_say_where_they_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench, constants = tmp_path / "bench.json", tmp_path / "constants.json"
    bench.write_text(report(("mae large, resident", {"images_per_second": 300.0, "mfu": 0.3})))
    constants.write_text('{"utilisation": 0.3}')

    def origin(name: str, *more: str) -> str:
        assert main(["plan", *more]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{name} "))
        return line.split("  ")[-1].strip()

    measured = ("--measured", str(bench))
    assert origin("utilisation", *measured) == "measured: mae large, resident, NVIDIA A100-SXM4-80GB"
    assert origin("peak_flops", *measured) == "published: A100 SXM, dense bf16"
    assert origin("utilisation", *measured, "--utilisation", "0.3") == "given"
    assert origin("utilisation", "--measured", str(constants)) == "given"
    assert origin("utilisation").startswith("assumed")


def test_help_advises_nothing_that_a_wheel_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--help"]) == 0
    assert "a checkout of the project" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_calibration_writes_what_plan_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from infra.bench.calibrate import main as calibrate

    path = tmp_path / "measured.json"
    calibrate(["--out", str(path), "--images", "4", "--rounds", "3"])
    assert set(json.loads(path.read_text())) < {item.name for item in fields(Constants)}
    assert main(["plan", "--measured", str(path), "--json"]) == 0
    assert "figures" in capsys.readouterr().out


def test_the_benchmark_of_a_gpu_gives_speeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    path.write_text(
        report(
            ("mae base, resident", {"images_per_second": 900.0, "mfu": 0.25}),
            ("mae base, fed (host decode)", {"images_per_second": 890.0}),
            ("mae large, resident", {"traceback": "out of memory"}),
            ("dinov2 small, resident", {"images_per_second": 300.0, "mfu": 0.2}),
            ("dinov2 large, resident", {"images_per_second": 60.0, "mfu": 0.4}),
        )
    )

    def speed(*more: str) -> tuple[float, str]:
        assert main(["plan", "--measured", str(path), "--json", *more]) == 0
        found = {figure["name"]: figure for figure in json.loads(capsys.readouterr().out)["figures"]}
        return found["speed of a GPU"]["value"], found["speed of a GPU"]["formula"]

    said = "measured: mae base, fed (host decode), NVIDIA A100-SXM4-80GB"
    assert speed("--model", "vit-base") == (890.0, said)
    assert speed("--model", "vit-base", "--images-per-second", "1000") == (1000.0, "measured")
    for more, utilisation in (
        (("--model", "vit-large"), 0.25),
        (("--model", "vit-huge", "--method", "dinov2"), 0.4),
        (("--model", "vit-tiny", "--method", "dinov2"), 0.2),
        (("--model", "vit-base", "--image-px", "448"), 0.25),
        (("--model", "vit-base", "--utilisation", "0.5"), 0.5),
    ):
        value, formula = speed(*more)
        assert formula == f"{utilisation:.0%} of 312 TFLOP/s / operations"
        assert value > 0


@pytest.mark.slow
def test_ranks_that_share_lanes_need_more_bandwidth() -> None:
    few, many = (
        figures(Job(images=1e9, method="mae", size="base", nodes=nodes, gpus=8, batch=16_384, steps=100))
        for nodes in (8, 128)
    )
    assert few["read amplification"].value == pytest.approx(1.1)
    assert many["bandwidth of a node"].value > 10 * few["bandwidth of a node"].value
