"""Probes and k-NN from images to results, on synthetic tasks of all kinds and on the real BreastMNIST."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from eval.medmnist.data import load_task
from eval.medmnist.tasks import MULTI_CLASS, MULTI_LABEL, TASKS
from eval.probes.comparison import compare, load_scores, model_names, side_by_side
from eval.probes.knn import knn_scores, predict_knn
from eval.probes.linear import few_shot, probe, run
from eval.probes.results import ProbeResult, append_results, read_results
from eval.scoring.metrics import METRICS, evaluate
from shards.errors import ConfigError
from tests.eval.builders import real_folder, write_archive

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["breastmnist", "bloodmnist", "retinamnist", "chestmnist"])
def test_every_kind_of_task(tmp_path: Path, name: str) -> None:
    task = load_task(name, root=write_archive(tmp_path, name, counts=(240, 80, 80)))
    (result,) = probe("pixels", [task], cache=tmp_path / "cache", num_resamples=50)
    assert set(result.metrics) == set(METRICS)
    assert result.metrics["auc"].value > 0.8
    assert result.metrics["auc"].lower <= result.metrics["auc"].value <= result.metrics["auc"].upper
    assert result.settings["C"] > 0
    assert len(result.thresholds) == (14 if name == "chestmnist" else 1)
    assert (result.num_train, result.num_val, result.num_test) == (240, 80, 80)
    labels, scores = load_scores(result)
    assert evaluate(labels, scores, task.kind)["auc"] == pytest.approx(result.metrics["auc"].value)


def test_a_result_says_what_it_was_made_from(tmp_path: Path) -> None:
    task = load_task("breast", root=write_archive(tmp_path, "breastmnist"))
    (result,) = probe("random:test_vit", [task], cache=tmp_path / "cache", image_size_px=32, num_resamples=20)
    facts = result.provenance
    assert facts["images"] == task.digest
    assert len(facts["weights"]) == 64
    assert facts["network_image_size_px"] == 32
    assert facts["pooling"] == "patch_mean"
    assert facts["trainer"] == {"random_weights": True}
    assert {"python", "torch", "numpy", "biovfm"} <= set(facts["versions"])
    assert ProbeResult.from_record(json.loads(json.dumps(result.record()))) == result


def test_seeds_change_random_weights_and_shots_only(tmp_path: Path) -> None:
    task = load_task("breast", root=write_archive(tmp_path, "breastmnist"))
    cache = tmp_path / "cache"
    networks = probe("random:test_vit", [task], cache=cache, image_size_px=32, seeds=(0, 1), num_resamples=20)
    assert networks[0].provenance["weights"] != networks[1].provenance["weights"]
    shots = probe("pixels", [task], cache=cache, seeds=(0, 1), shots=4, num_resamples=20)
    assert [result.num_train for result in shots] == [8, 8]
    assert not np.array_equal(load_scores(shots[0])[1], load_scores(shots[1])[1])
    whole = probe("pixels", [task], cache=cache, seeds=(0, 1), num_resamples=20)
    assert whole[0].metrics == whole[1].metrics


def test_few_shot_takes_as_many_of_each_label(tmp_path: Path) -> None:
    task = load_task("chest", root=write_archive(tmp_path, "chestmnist"))
    features = np.arange(60, dtype=np.float32)[:, None]
    chosen, labels = few_shot(features, task.train, 3, 0)
    assert (labels.sum(axis=0) >= 3).all()
    assert np.array_equal(labels, task.train.labels[chosen[:, 0].astype(int)])


def test_neighbours_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    train, queries = (rng.normal(size=(n, 6)).astype(np.float32) for n in (40, 7))
    labels = rng.integers(0, 3, (40, 1))
    got = knn_scores(train, labels, queries, kind=MULTI_CLASS, num_classes=3, ks=(5, 20), temperature=0.07)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    similar = (unit(queries) @ unit(train).T).astype(np.float64)
    for row in range(7):
        nearest = np.argsort(-similar[row])[:20]
        weights = np.exp(similar[row][nearest] / 0.07)
        weights /= weights.sum()
        for k in (5, 20):
            expected = [weights[:k][labels[nearest[:k], 0] == c].sum() for c in range(3)]
            assert np.allclose(got[k][row], expected, atol=1e-5)
    many = (rng.random((40, 2)) < 0.5).astype(int)
    scores = knn_scores(train, many, queries, kind=MULTI_LABEL, num_classes=2, ks=(50,))[50]
    assert scores.shape == (7, 2)
    assert scores.max() <= 1


def test_knn_is_a_result_like_any_other(tmp_path: Path) -> None:
    task = load_task("blood", root=write_archive(tmp_path, "bloodmnist", counts=(240, 80, 80)))
    (result,) = run(
        lambda features, task, _: predict_knn(features, task, ks=(5, 10)),
        "pixels",
        [task],
        protocol="knn",
        options={"ks": [5, 10]},
        cache=tmp_path / "cache",
        num_resamples=20,
    )
    assert result.protocol == "knn"
    assert result.settings["k"] in {5, 10}
    assert result.metrics["auc"].value > 0.75
    assert np.allclose(load_scores(result)[1].sum(axis=1), 1)


def test_models_side_by_side(tmp_path: Path) -> None:
    tasks = [
        load_task(name, root=write_archive(tmp_path, name, counts=(120, 40, 60)))
        for name in ("breastmnist", "bloodmnist")
    ]
    cache = tmp_path / "cache"
    results = [
        *probe("random:test_vit", tasks, cache=cache, image_size_px=32, num_resamples=50),
        *probe("pixels", tasks, cache=cache, num_resamples=50),
    ]
    path = tmp_path / "results.jsonl"
    for result in results:
        append_results(path, [result])
    again = read_results(path)
    assert again == results
    comparisons = compare(again, num_resamples=50)
    assert [item.task for item in comparisons] == ["breastmnist", "bloodmnist", "mean"]
    values = [item.difference.value for item in comparisons]
    assert values[2] == pytest.approx(np.mean(values[:2]))
    assert all(item.difference.lower <= item.difference.value <= item.difference.upper for item in comparisons)
    rows = side_by_side(again)
    assert [row[0] for row in rows] == ["BreastMNIST", "BloodMNIST", "mean"]
    assert model_names(again) == ["random:test_vit", "pixels"]


def test_results_that_cannot_be_compared_or_read(tmp_path: Path) -> None:
    results = []
    for seed, spec in enumerate(("pixels", "random:test_vit")):
        archive = write_archive(tmp_path / str(seed), "breastmnist", counts=(60, 24, 36 + 2 * seed))
        task = load_task("breast", root=archive)
        results += probe(spec, [task], cache=tmp_path / "cache", image_size_px=32, num_resamples=20)
    with pytest.raises(ConfigError, match="scored on different images"):
        compare(results, num_resamples=20)
    Path(results[0].scores_path).unlink()
    with pytest.raises(ConfigError, match="are gone"):
        load_scores(results[0])
    path = tmp_path / "broken.jsonl"
    path.write_text('{"task": "breastmnist"}\n')
    with pytest.raises(ConfigError, match=r"broken\.jsonl:1 is no probe result"):
        read_results(path)
    with pytest.raises(ConfigError, match="there is no"):
        read_results(tmp_path / "none.jsonl")


def test_raw_pixels_of_the_real_breastmnist(tmp_path: Path) -> None:
    task = load_task("breastmnist", root=real_folder())
    assert (len(task.train), len(task.val), len(task.test)) == (546, 78, 156)
    assert TASKS["breastmnist"].num_samples == 780
    pixels = {name: task.split(name).images.reshape(len(task.split(name)), -1) / 255 for name in ("train", "test")}
    fitted = LogisticRegression(C=0.01, max_iter=5000).fit(pixels["train"], task.train.labels[:, 0])
    scores = fitted.predict_proba(pixels["test"])
    assert evaluate(task.test.labels, scores, task.kind)["auc"] == pytest.approx(0.783, abs=0.002)
    (ours,) = probe("pixels", [task], cache=tmp_path)
    auc = ours.metrics["auc"]
    assert 0.75 < auc.value < 0.9
    assert 0.7 < auc.lower < auc.value < auc.upper < 0.95
