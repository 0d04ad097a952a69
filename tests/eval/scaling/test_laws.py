"""The scaling analysis on the paper's own figures, and its parts on numbers that are known."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress

from eval.medmnist.data import load_task
from eval.medmnist.tasks import TASKS
from eval.scaling.figures import plot_curves, save
from eval.scaling.laws import Slope, correlate, fit_power_law, fit_slopes
from eval.scaling.measurements import MEAN, Measurement, mean_over_tasks, read_measurements, read_tables
from eval.scaling.parameters import SIZES, encoder_params, encoder_params_m, mae_params
from eval.scaling.task_factors import davies_bouldin, gzip_ratio, known_factors, task_factors
from infra.cli import main
from shards.errors import ConfigError
from tests.eval.builders import write_archive

pytestmark = pytest.mark.torch

DATA = Path(__file__).parents[1] / "data"
FIXTURES = Path(__file__).parents[1] / "fixtures"
PAPER = DATA / "auc_by_size_digitised.csv"
PRINTED = {("chestmnist", "DINOv2"): 0.0224, ("organsmnist", "MAE"): 0.0040}
"""Slopes that the authors' figure prints and that the digitised table was solved from, to four digits."""


@pytest.fixture(scope="module")
def paper() -> list[Measurement]:
    return read_measurements(PAPER)


def known_slopes() -> dict[tuple[str, str], float]:
    """Least squares of ln(AUC in percent) on ln(params in M) over the four sizes, by another route."""
    with PAPER.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["algorithm"] != "BiomedCLIP"]
    slopes = {}
    for key in {(row["dataset"].lower(), row["algorithm"]) for row in rows}:
        mine = [row for row in rows if (row["dataset"].lower(), row["algorithm"]) == key]
        x, y = ([float(row[name]) for row in mine] for name in ("notebook_params_M", "test_auc_percent"))
        slopes[key] = float(linregress(np.log(x), np.log(y)).slope)
    return slopes


def test_the_papers_slopes(paper: list[Measurement]) -> None:
    slopes = {
        (slope.task, slope.algorithm): slope.law
        for slope in fit_slopes(paper)
        if slope.axis == "params_total_m" and slope.form == "power" and slope.task != MEAN
    }
    assert len(slopes) == 24
    for key, slope in known_slopes().items():
        assert abs(slopes[key].slope - slope) < 1e-12
        assert slopes[key].num_points == 4
    for key, printed in PRINTED.items():
        assert abs(slopes[key].slope - printed) < 3e-4


def test_reading_the_figures_moves_no_slope_by_more_than_the_tolerance(paper: list[Measurement]) -> None:
    """The worst case over all points at once, plus half of the fourth digit that is printed."""
    with PAPER.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["algorithm"] != "BiomedCLIP"]
    error = {
        (row["dataset"].lower(), row["algorithm"], row["size"]): float(row["pixel_uncertainty_pm"]) for row in rows
    }
    for task, algorithm in known_slopes():
        points = [point for point in paper if (point.task, point.algorithm) == (task, algorithm)]
        x = np.log([point.params_total_m for point in points])
        auc = np.array([point.auc_percent for point in points])
        moved = -np.log1p(-np.array([error[task, algorithm, point.model] for point in points]) / auc)
        weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
        assert np.abs(weights) @ moved + 5e-5 < 3e-4


def test_the_papers_means(paper: list[Measurement]) -> None:
    means = {(p.algorithm, p.model): p.auc_percent for p in mean_over_tasks(paper)}
    sizes = ("Tiny", "Small", "Base", "Large")
    assert np.allclose([means["DINOv2", size] for size in sizes], [92.52, 94.19, 94.22, 94.93], rtol=0, atol=0.006)
    assert np.allclose([means["MAE", size] for size in sizes], [89.45, 91.91, 93.40, 94.01], rtol=0, atol=0.006)


def test_encoder_parameters_stand_beside_the_total(paper: list[Measurement]) -> None:
    by_axis = {
        s.axis: s.law.slope for s in fit_slopes(paper) if (s.task, s.algorithm, s.form) == (MEAN, "MAE", "power")
    }
    assert set(by_axis) == {"params_total_m", "params_encoder_m"}
    assert 0 < by_axis["params_encoder_m"] < by_axis["params_total_m"]


def test_the_saturating_form_falls(paper: list[Measurement]) -> None:
    laws = [s for s in fit_slopes(paper) if s.form == "saturating" and s.axis == "params_total_m" and s.task == MEAN]
    assert len(laws) == 2
    assert all(s.law.slope < 0 for s in laws)
    known = linregress(np.log([31.2, 47.4, 111.66, 329.24]), np.log(100 - np.array([89.45, 91.91, 93.40, 94.01])))
    assert next(s for s in laws if s.algorithm == "MAE").law.slope == pytest.approx(known.slope, abs=1e-3)


def test_correlations_with_the_tasks_properties(paper: list[Measurement]) -> None:
    from scipy.stats import pearsonr, spearmanr

    slopes = fit_slopes(paper)
    found = correlate(slopes, [known_factors(name) for name in TASKS])
    known = known_slopes()
    for algorithm in ("DINOv2", "MAE"):
        values = [known[name, algorithm] for name in TASKS]
        for factor in ("num_classes", "num_samples"):
            x = [getattr(info, factor) for info in TASKS.values()]
            (mine,) = [
                c
                for c in found
                if (c.factor, c.algorithm, c.axis, c.form) == (factor, algorithm, "params_total_m", "power")
            ]
            assert (mine.pearson, mine.pearson_p) == pytest.approx(tuple(pearsonr(x, values)))
            assert (mine.spearman, mine.spearman_p) == pytest.approx(tuple(spearmanr(x, values)))
            assert mine.num_tasks == 12


def test_a_law_and_its_interval_are_scipys() -> None:
    rng = np.random.default_rng(0)
    x = np.geomspace(1, 100, 7)
    y = 3 * x**0.25 * np.exp(0.05 * rng.normal(size=7))
    law, theirs = fit_power_law(x, y), linregress(np.log(x), np.log(y))
    assert law.slope == pytest.approx(theirs.slope)
    assert law.coefficient == pytest.approx(math.exp(theirs.intercept))
    assert law.p_value == pytest.approx(theirs.pvalue)
    assert law.r_squared == pytest.approx(theirs.rvalue**2)
    assert (law.upper - law.lower) / 2 == pytest.approx(2.570581835636314 * theirs.stderr)
    exact = fit_power_law([1, 2, 4], [5.0, 10.0, 20.0])
    assert (exact.slope, exact.coefficient) == (pytest.approx(1), pytest.approx(5))
    assert law(np.array([1.0]))[0] == law.coefficient


def test_two_points_have_no_interval_and_one_has_no_law() -> None:
    law = fit_power_law([1, 2], [1, 4])
    assert law.slope == pytest.approx(2)
    assert math.isnan(law.lower)
    with pytest.raises(ValueError, match="two different x"):
        fit_power_law([2, 2], [1, 4])
    with pytest.raises(ValueError, match="positive"):
        fit_power_law([1, 2], [0, 4])


def test_data_size_and_mix_are_axes_where_they_vary() -> None:
    points = [
        Measurement(
            task="breastmnist",
            algorithm="mae",
            model="tiny",
            auc_percent=70 + 5 * fraction + 3 * len(mix.split("+")),
            data_fraction=fraction,
            num_images=1000 * fraction * len(mix.split("+")),
            modality=mix,
            seed=seed,
        )
        for fraction in (0.25, 0.5, 1.0)
        for mix in ("CT", "CT+MR")
        for seed in (0, 1)
    ]
    slopes = [slope for slope in fit_slopes(points) if slope.form == "power"]
    by_axis = {
        axis: [s for s in slopes if s.axis == axis] for axis in ("num_images", "data_fraction", "num_modalities")
    }
    assert {s.fixed for s in by_axis["data_fraction"]} == {"model=tiny, modality=CT", "model=tiny, modality=CT+MR"}
    assert {(s.law.num_points, s.law.num_runs) for s in by_axis["data_fraction"]} == {(3, 6)}
    assert {s.fixed for s in by_axis["num_modalities"]} == {
        f"model=tiny, data_fraction={f:g}" for f in (0.25, 0.5, 1.0)
    }
    assert len(by_axis["num_images"]) == 2
    assert not [s for s in slopes if s.axis.startswith("params")]


def test_parameters_are_the_papers_axis() -> None:
    totals = [mae_params(*SIZES[name]) / 1e6 for name in ("tiny", "small", "base", "large")]
    assert np.allclose(totals, [31.2, 47.4, 111.66, 329.24], atol=0.005)
    encoders = [encoder_params_m(f"ViT-{name}") for name in ("Tiny", "Small", "Base", "Large")]
    assert np.allclose(encoders, [5.52, 21.67, 85.80, 303.30], atol=0.005)
    assert math.isnan(encoder_params_m("BiomedCLIP"))


def test_encoder_weights_are_timms() -> None:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    assert encoder_params(*SIZES["tiny"]) == sum(weight.numel() for weight in model.parameters())


def test_complexity_is_the_fixtures() -> None:
    with np.load(FIXTURES / "analysis_complexity.npz", allow_pickle=False) as known:
        for kind in ("gray", "rgb"):
            got = [gzip_ratio(image) for image in known[f"images_{kind}"]]
            assert np.allclose(got, known[f"gzip9_ratio_{kind}"], rtol=0.03)
        assert davies_bouldin(known["dbi_features"], known["dbi_labels"]) == pytest.approx(
            float(known["dbi"]), rel=1e-8
        )
    with pytest.raises(ValueError, match="two classes"):
        davies_bouldin(np.zeros((3, 2)), np.zeros(3))


def test_factors_of_a_task(tmp_path: Path) -> None:
    for name in ("breastmnist", "chestmnist"):
        factors = task_factors(load_task(name, root=write_archive(tmp_path, name)))
        assert factors["num_samples"] == TASKS[name].num_samples
        assert 0.5 < factors["gzip_ratio"] < 1.2
        assert factors["davies_bouldin"] > 0


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    cases = {
        "lacks algorithm, auc": "task,model\nbreastmnist,tiny\n",
        "AUC of 7100": "task,algorithm,model,auc\nbreastmnist,mae,tiny,71\n",
        "results.csv:2: seed is no number": "task,algorithm,model,auc,seed\nbreastmnist,mae,tiny,0.7,x\n",
        "holds no rows": "task,algorithm,model,auc\n",
    }
    for message, text in cases.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_measurements(path)
    with pytest.raises(ConfigError, match="there is no"):
        read_measurements(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scaling")
    few = out / "few.csv"
    rows = PAPER.read_text().splitlines()
    few.write_text("\n".join(rows[:1] + [row for row in rows if row.startswith(("Breast", "Path", "Retina"))]) + "\n")
    data = out / "data"
    write_archive(data, "breastmnist")
    assert main(["scaling", str(few), "--out", str(out / "report"), "--data", str(data), "--json"]) == 0
    return out / "report"


def test_the_report_is_whole(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    assert {"index.html", "slopes.csv", "factors.csv", "correlations.csv", "measurements.csv", "figures"} <= names
    figures = {path.name for path in (written / "figures").iterdir()}
    for axis in ("params_total_m", "params_encoder_m"):
        assert {f"curves_{axis}.svg", f"curves_{axis}.png", f"slopes_{axis}.svg", f"slopes_{axis}.png"} <= figures
    with (written / "factors.csv").open(newline="") as lines:
        factors = {row["task"]: row for row in csv.DictReader(lines)}
    assert math.isnan(float(factors["pathmnist"]["gzip_ratio"]))
    assert float(factors["breastmnist"]["gzip_ratio"]) > 0
    with (written / "slopes.csv").open(newline="") as lines:
        assert {row["task"] for row in csv.DictReader(lines)} == {"breastmnist", "pathmnist", "retinamnist", "mean"}


def test_the_page_stands_alone(written: Path) -> None:
    page = (written / "index.html").read_text()
    assert page.count("<svg") == 6
    for fetched in ("<script", '<link rel="stylesheet"', 'src="http', "@import"):
        assert fetched not in page
    assert "does not show that there is none" in page


def test_the_same_table_gives_the_same_figures(written: Path, tmp_path: Path) -> None:
    few = written.parent / "few.csv"
    assert main(["scaling", str(few), "--out", str(tmp_path), "--json"]) == 0
    name = "figures/curves_params_total_m.svg"
    assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_the_json_says_it_all(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = written.parent / "few.csv"
    capsys.readouterr()
    assert main(["scaling", str(few), "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"slopes", "correlations", "files"} == set(result)
    assert Path(result["files"]["page"]).is_file()


def runs(values: dict[tuple[float, int], float], *, task: str = "breastmnist") -> list[Measurement]:
    """Runs by (millions of parameters, seed) of one task."""
    return [
        Measurement(task=task, algorithm="mae", model=f"{size:g}", params_total_m=size, seed=seed, auc_percent=auc)
        for (size, seed), auc in values.items()
    ]


def law_of(points: list[Measurement], form: str, task: str = "breastmnist") -> Slope | None:
    found = [s for s in fit_slopes(points) if (s.form, s.task, s.axis) == (form, task, "params_total_m")]
    return found[0] if found else None


def test_seeds_and_repetitions_are_no_further_points() -> None:
    once = runs({(5, 0): 80, (20, 0): 85, (80, 0): 84, (300, 0): 90})
    law = law_of(once, "power")
    thrice = law_of(once * 3, "power")
    assert law is not None
    assert thrice is not None
    assert (thrice.law.num_points, thrice.law.num_runs) == (4, 12)
    for name in ("slope", "lower", "upper", "p_value"):
        assert getattr(thrice.law, name) == pytest.approx(getattr(law.law, name))


def test_task_and_mean_follow_one_rule() -> None:
    values = {(size, seed): 80 + 3 * math.log(size) + seed for size in (5, 20, 80) for seed in (0, 1)}
    both = runs(values) + runs(values, task="bloodmnist")
    of_task, of_mean = law_of(both, "power"), law_of(both, "power", MEAN)
    assert of_task is not None
    assert of_mean is not None
    assert of_mean.law.slope == pytest.approx(of_task.law.slope)
    assert (of_mean.law.lower, of_mean.law.num_points) == (pytest.approx(of_task.law.lower), 3)


def test_a_perfect_run_does_not_remove_a_law() -> None:
    values = {(5, 0): 90.0, (20, 0): 95.0, (80, 0): 98.0, (80, 1): 100.0, (300, 0): 99.0}
    law = law_of(runs(values), "saturating")
    assert law is not None
    assert (law.law.num_points, law.law.num_runs, law.num_left_out) == (4, 5, 0)
    every = law_of(runs(values | {(300, 0): 100.0}), "saturating")
    assert every is not None
    assert (every.law.num_points, every.law.num_runs, every.num_left_out) == (3, 4, 1)
    assert every.law.slope < 0
    assert law_of(runs({(5, 0): 90.0, (20, 0): 100.0}), "saturating") is None


def test_runs_that_are_all_perfect_have_a_figure(tmp_path: Path) -> None:
    points = [replace(one, auc_percent=100.0) for one in runs({(60, 0): 1.0, (120, 0): 1.0})]
    figure = plot_curves(points, fit_slopes(points), "params_total_m")
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert low < 100 < high
    save(figure, tmp_path / "curves")


def test_the_papers_tables_come_out_of_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixes = tmp_path / "mixes.csv"
    mixes.write_text("pretraining_data,mean_auc_percent,source\nUS only,93.25,x\n0.2M,94.22,x\n21M,94.42,x\n")
    sizes = tmp_path / "sizes.csv"
    sizes.write_text("size,notebook_x_axis_M,encoder_only_M_incl_fixed_pos_embed\nTiny,31.2,5.52\nHuge,700,630\n")
    out = tmp_path / "out"
    assert main(["scaling", str(PAPER), str(mixes), str(sizes), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len([s for s in found["slopes"] if s["axis"] == "params_total_m" and s["form"] == "power"]) == 26
    assert (out / "figures" / "mixes.png").stat().st_size > 5000
    page = (out / "index.html").read_text()
    assert "By pretraining set" in page
    assert "US only" in page
    for command, said in ((["scaling"], "no table of results"), (["scaling", str(sizes)], "no results")):
        assert main([*command, "--out", str(out)]) == 2
        assert said in capsys.readouterr().err


def test_a_table_of_sizes_fills_in_what_the_results_lack(tmp_path: Path) -> None:
    results, sizes = tmp_path / "results.csv", tmp_path / "sizes.csv"
    results.write_text("task,algorithm,model,auc,params_total_m\nbreast,mae,Own,0.8,\nbreast,mae,Tiny,0.9,30\n")
    sizes.write_text("size,notebook_x_axis_M\nown,12.5\ntiny,31.2\n")
    first, second = read_tables([sizes, results])
    assert (first.params_total_m, second.params_total_m) == (12.5, 30)
    sizes.write_text("size,notebook_x_axis_M\nown,many\n")
    with pytest.raises(ConfigError, match="'many' is no number of parameters"):
        read_tables([results, sizes])


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["scaling", str(PAPER), "--out", str(tmp_path / "file" / "out")]) == 2
    assert "pass another --out" in capsys.readouterr().err
