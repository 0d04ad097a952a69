"""Subsets: what a lock pins, and that it notices."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SubsetError
from shards.subset.canonical import materialize
from shards.subset.data_list import export_list
from shards.subset.finding import verify
from shards.subset.lock import Lock, Selection, create
from tests.mutations import ODD_YAML, error_of, mutated, mutated_yaml
from tests.shards.builders import add_source, jpeg, small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("subset") / "data")


def keys(lock: Lock, folder: Path) -> set[str]:
    path = folder / "lock.yaml"
    lock.write(path)
    return {line.split(".")[0] for line in list(export_list(str(path), format_="tsv"))[1:]}


def test_tags_select(dataset: Dataset) -> None:
    lock = create(dataset, Selection(modality=("ct", "US")))
    assert lock.counts == {"CT": 60, "US": 40}
    assert lock.num_samples == 100
    assert create(dataset, Selection(source=("gamma",))).counts == {"Fundus": 20}


def test_a_lock_survives_its_file(dataset: Dataset, tmp_path: Path) -> None:
    lock = create(dataset, Selection(modality=("CT",), fraction=0.5, seed=4))
    lock.write(tmp_path / "lock.yaml")
    assert Lock.read(tmp_path / "lock.yaml") == lock
    verify(lock, dataset)


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, (6, 4, 2)), (0.5, (30, 20, 10)), (1.0, (60, 40, 20))])
def test_a_fraction_of_each_group(dataset: Dataset, fraction: float, expected: tuple[int, int, int]) -> None:
    counts = create(dataset, Selection(fraction=fraction)).counts
    assert (counts["CT"], counts["US"], counts["Fundus"]) == expected


@pytest.mark.slow
def test_a_larger_fraction_contains_the_smaller(dataset: Dataset, tmp_path: Path) -> None:
    small = keys(create(dataset, Selection(fraction=0.2, seed=1)), tmp_path)
    large = keys(create(dataset, Selection(fraction=0.6, seed=1)), tmp_path)
    other = keys(create(dataset, Selection(fraction=0.2, seed=2)), tmp_path)
    assert small < large
    assert small != other


def test_a_count_of_each_group(dataset: Dataset) -> None:
    assert create(dataset, Selection(count=25)).counts == {"CT": 25, "US": 25, "Fundus": 20}
    assert create(dataset, Selection(count=25, per=())).num_samples == 25


@pytest.mark.slow
def test_a_lock_made_before_more_ingests_keeps_its_samples(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    lock = create(dataset, Selection(modality=("US",)))
    before = keys(lock, tmp_path)
    for number in range(3):
        add_source(dataset, f"later{number}", "US", [jpeg(1000 + number)])
    verify(lock, dataset)
    assert keys(lock, tmp_path) == before
    assert create(dataset, Selection(modality=("US",))).num_samples == 43


@pytest.mark.slow
def test_the_digest_is_about_samples_not_shards(tmp_path: Path) -> None:
    one, two = Dataset.create(str(tmp_path / "one")), Dataset.create(str(tmp_path / "two"))
    images = [jpeg(n) for n in range(20)]
    add_source(one, "alpha", "CT", images, per_shard=5)
    add_source(two, "alpha", "CT", images, per_shard=20)
    assert create(one, Selection()).digest == create(two, Selection()).digest
    add_source(two, "beta", "CT", [jpeg(99)])
    assert create(one, Selection()).digest != create(two, Selection()).digest


@pytest.mark.slow
def test_materialized_subsets_hold_the_same_samples(dataset: Dataset, tmp_path: Path) -> None:
    lock = create(dataset, Selection(fraction=0.4))
    copy = materialize(lock, str(tmp_path / "copy"))
    assert create(copy, Selection()).digest == lock.digest
    assert materialize(lock, str(tmp_path / "copy")).version() == 0


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        (Selection(modality=("NM",)), SubsetError, "no sample of"),
        (Selection(where="nonsense = 3"), ConfigError, "the predicate does not work"),
        (
            Selection(where="key IN (SELECT content FROM read_text('/etc/hostname'))"),
            ConfigError,
            "reads another table",
        ),
    ],
)
def test_selections_that_cannot_be_say_so(
    dataset: Dataset, selection: Selection, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        create(dataset, selection)


def test_a_lock_with_an_unknown_key_names_the_nearest(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "lock.yaml"
    create(dataset, Selection()).write(path)
    path.write_text(path.read_text().replace("num_samples:", "num_sampels:"))
    with pytest.raises(ConfigError, match=r"lock\.yaml.*unknown key 'num_sampels', did you mean 'num_samples'"):
        Lock.read(path)


LOCK = {
    "format": 2,
    "dataset": "data",
    "dataset_id": "a",
    "index_version": 3,
    "selection": {"modality": ["CT"], "where": "width > 3", "fraction": 0.5, "per": ["source"], "seed": 1},
    "thresholds": {"alpha": "7fff"},
    "num_samples": 10,
    "num_shards": 1,
    "counts": {"CT": 10},
    "digest": "sha256:00",
    "order": "sha256:11",
    "parts": [{"source": "alpha", "modality": "CT", "num_samples": 10, "digest": "sha256:22"}],
    "keys": "x.keys",
    "encoding": {"jpeg_quality": 95},
    "sources": {"alpha": {"spec": {"id": "alpha"}, "settings": {}}},
}


def lock_or_error(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    error = error_of(ConfigError, lambda: Lock.read(path))
    assert error is None or (path.name in error.message and "\n" not in error.message)
    return error is None


def test_the_lock_that_is_damaged_below_is_sound(tmp_path: Path) -> None:
    assert lock_or_error(tmp_path / "a.lock.yaml", yaml.safe_dump(LOCK).encode())


@settings(max_examples=60, deadline=None)
@given(mutated_yaml(LOCK))
def test_a_damaged_lock_is_a_lock_or_one_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    lock_or_error(tmp_path_factory.getbasetemp() / "any.lock.yaml", text.encode())


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.sampled_from(ODD_YAML).map(str.encode), st.binary(max_size=60)))
def test_any_bytes_are_no_lock_but_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    assert not lock_or_error(tmp_path_factory.getbasetemp() / "any.lock.yaml", data)


@settings(max_examples=60, deadline=None)
@given(mutated(yaml.safe_dump(LOCK).encode()))
def test_a_lock_with_damaged_bytes_is_a_lock_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    lock_or_error(tmp_path_factory.getbasetemp() / "any.lock.yaml", data)


def test_a_lock_that_does_not_say_has_64_lanes(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "plain.lock.yaml"
    create(dataset, Selection()).write(path)
    assert "most_lanes" not in path.read_text()
    assert Lock.read(path).most_lanes == 64
    create(dataset, Selection(), most_lanes=1024).write(path)
    assert yaml.safe_load(path.read_text())["most_lanes"] == 1024
    assert Lock.read(path).most_lanes == 1024
    path.write_text(path.read_text().replace("most_lanes: 1024", "most_lanes: 8"))
    with pytest.raises(ConfigError, match="most_lanes"):
        Lock.read(path)


@pytest.mark.parametrize("most_lanes", [8, 65_537])
def test_a_lock_of_impossible_lanes_is_not_made(dataset: Dataset, most_lanes: int) -> None:
    with pytest.raises(ConfigError, match="lanes — give from 64 to 65,536 of them"):
        create(dataset, Selection(), most_lanes=most_lanes)


@pytest.mark.parametrize("ranks", ["70000", "0", "-5"])
def test_impossible_ranks_are_one_line(
    dataset: Dataset, tmp_path: Path, ranks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from infra.cli import main

    assert main(["subset", "create", dataset.url, "--ranks", ranks, "--out", str(tmp_path / "a.lock.yaml")]) == 2
    assert f"--ranks {ranks} are no ranks of a run — give from 1 to 65,536" in capsys.readouterr().err
    assert not (tmp_path / "a.lock.yaml").exists()


@pytest.mark.slow
def test_the_largest_run_decides_and_a_copy_keeps_it(dataset: Dataset, tmp_path: Path) -> None:
    from infra.cli import main

    path, copy = tmp_path / "large.lock.yaml", tmp_path / "copy.lock.yaml"
    assert main(["subset", "create", dataset.url, "--ranks", "1024", "--out", str(path)]) == 0
    assert main(["subset", "materialize", str(path), str(tmp_path / "copy"), "--lock-out", str(copy)]) == 0
    assert Lock.read(path).most_lanes == Lock.read(copy).most_lanes == 1024
    assert main(["subset", "create", dataset.url, "--ranks", "8", "--out", str(path)]) == 0
    assert Lock.read(path).most_lanes == 64
