"""Only women over 60, CT or MR, from a hospital's table: counted, pinned, streamed with age and label, resumed."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.cli import main
from shards.decode import Crops
from shards.stream import Batch, Stream
from shards.subset import Lock
from tests.ingest.material import encoded, photo, write_folder

PATIENTS = {
    f"P{number:02d}": ("w" if number % 3 else "m", 50 + 2 * number, "malign" if number % 2 else "benign")
    for number in range(15)
}
MODALITIES = {"CT": range(5), "MR": range(5, 10), "US": range(10, 15)}
CROPS = (Crops(size_px=32),)


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three private sources, two images of each patient; a table with a patient who has no image."""
    place = tmp_path_factory.mktemp("hospital")
    data = str(place / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIOVFM_SECRET", "the secret of the hospital")
        for modality, numbers in MODALITIES.items():
            files = {f"P{n:02d}/{k}.png": encoded(photo(100 * n + k)) for n in numbers for k in range(2)}
            raw = write_folder(place / modality, files)
            words = ["ingest", modality.lower(), str(raw), data, "--modality", modality, "--group", "folder"]
            assert main([*words, "--workers", "0"]) == 0
        rows = [f"{name};{sex};{age};{label if age != 70 else ''}" for name, (sex, age, label) in PATIENTS.items()]
        table = "Patient;Geschlecht;Alter;Diagnose (endgültig)\r\n" + "".join(
            f"{row}\r\n" for row in [*rows, "P99;w;80;benign"]
        )
        (place / "klinik.csv").write_bytes(table.encode("cp1252"))
        words = ["columns", "add", data, str(place / "klinik.csv"), "--by", "group", "--column", "age=Alter"]
        words += ["--column", "sex=Geschlecht", "--column", "label=Diagnose (endgültig)"]
        assert main(words) == 0
        pinned = str(place / "women.lock.yaml")
        words = ["subset", "create", data, "--modality", "CT", "--modality", "MR", "--out", pinned]
        assert main([*words, "--where", "sex = 'w' AND age > 60"]) == 0
    return place / "women.lock.yaml"


def take(stream: Stream, num: int) -> list[Batch]:
    return [batch for batch, _ in zip(stream, range(num), strict=False)]


def facts(batch: Batch) -> list[tuple[str, int, str | None]]:
    ages, labels = batch.columns["age"], batch.columns["label"]
    return list(zip(batch.keys, ages.values.tolist(), labels.words(), strict=True))


def open_stream(lock: Path, **more: int) -> Stream:
    return Stream(lock, crops=CROPS, global_batch=4, seed=5, columns=["age", "label"], **more)


@pytest.mark.slow
def test_counted_and_pinned(lock: Path) -> None:
    wanted = [name for name, (sex, age, _) in PATIENTS.items() if sex == "w" and age > 60 and int(name[1:]) < 10]
    assert wanted == ["P07", "P08"]
    assert Lock.read(lock).num_samples == 2 * len(wanted) == 4
    assert Lock.read(lock).columns_version == 0


def test_age_and_label_are_those_of_the_samples(lock: Path) -> None:
    with Stream(lock, crops=CROPS, global_batch=2, columns=["age", "label"], num_epochs=1) as stream:
        rows = [row for batch in stream for row in facts(batch)]
        index = stream.dataset.query("SELECT key, group_id FROM samples").to_pylist()
    group_of = {row["key"]: row["group_id"] for row in index}
    by_group: dict[str, set[tuple[int, str | None]]] = {}
    for key, age, label in rows:
        by_group.setdefault(group_of[key], set()).add((age, label))
    assert sorted(by_group.values(), key=str) == [{(64, "malign")}, {(66, "benign")}]


@pytest.mark.slow
def test_two_ranks_see_what_one_sees_and_a_resumed_one_goes_on(lock: Path) -> None:
    whole = [facts(batch) for batch in take(open_stream(lock), 6)]
    ranks = [take(open_stream(lock, rank=rank, world_size=2), 6) for rank in range(2)]
    assert [facts(one) + facts(two) for one, two in zip(*ranks, strict=True)] == whole
    first = open_stream(lock)
    assert len(take(first, 2)) == 2
    second = open_stream(lock)
    second.load_state_dict(first.state_dict())
    assert [facts(batch) for batch in take(second, 4)] == whole[2:]
    assert first.digests == second.digests
    assert "age=sha256:" in first.digests.columns


def test_a_whole_dataset_has_masks_where_nothing_is_known(lock: Path) -> None:
    with Stream(Lock.read(lock).dataset, global_batch=30, columns=["label", "age"]) as stream:
        (batch,) = take(stream, 1)
    labels = batch.columns["label"]
    assert labels.categories == ("benign", "malign")
    assert labels.values.dtype == np.int32
    assert np.array_equal(labels.missing, labels.values == -1)
    assert labels.missing.sum() == 2
    assert not batch.columns["age"].missing.any()


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.torch
def test_processes_of_two_ranks_see_what_one_process_sees_and_go_on_from_its_state(lock: Path, tmp_path: Path) -> None:
    from tests.train.ranks import launch

    def run(name: str, world_size: int, num: int, state: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        out = tmp_path / name
        out.mkdir()
        if state is not None:
            (out / "state.json").write_text(json.dumps(state))
        words = [str(lock), str(num)]
        launch(out, world_size=world_size, module="tests.ingest.columns.column_ranks", words=words)
        return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(world_size)]

    def joined(ranks: list[dict[str, Any]]) -> list[list[Any]]:
        return [[*chain(*parts)] for parts in zip(*(rank["batches"] for rank in ranks), strict=True)]

    [one] = run("one", 1, 5)
    first = run("first", 2, 2)
    assert joined(first) == one["batches"][:2]
    assert {(age, label) for _, age, label in one["batches"][0]} == {(64, "malign"), (66, "benign")}
    assert first[0]["state"] == first[1]["state"]
    assert joined(run("resumed", 2, 3, first[0]["state"])) == one["batches"][2:]
    [alone] = run("alone", 1, 3, first[0]["state"])
    assert alone["batches"] == one["batches"][2:]
