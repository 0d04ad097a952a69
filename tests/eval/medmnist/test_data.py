"""Loading tasks from every place, and saying plainly when there is nothing to load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import eval.medmnist.data as module
from eval.medmnist.data import load_task, medmnist_cache, task_names
from eval.medmnist.tasks import TASKS
from shards.errors import ConfigError, SourceError, TaskNotFoundError
from tests.eval.builders import write_archive


def test_the_table_is_the_packages_own() -> None:
    INFO = pytest.importorskip("medmnist").INFO  # its own name

    assert set(TASKS) == {name for name in INFO if not name.endswith("3d")}
    for name, info in TASKS.items():
        theirs = INFO[name]
        assert (info.kind, info.channels, info.title) == (theirs["task"], theirs["n_channels"], theirs["python_class"])
        counts = {"train": info.num_train, "val": info.num_val, "test": info.num_test}
        assert counts == theirs["n_samples"]
        assert list(info.class_names) == list(theirs["label"].values())
        assert info.licence == theirs["license"]


@pytest.mark.parametrize("name", ["breastmnist", "chestmnist", "retinamnist", "pathmnist"])
def test_a_folder_a_file_and_a_url_give_the_same(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOVFM_MEDMNIST_ROOT", str(tmp_path / "cache"))
    path = write_archive(tmp_path / "data", name)
    folder = load_task(name, root=tmp_path / "data")
    explicit = load_task(name, root=path)
    url = load_task(name, root=f"file://{tmp_path}/data")
    assert folder.digest == explicit.digest == url.digest
    assert np.array_equal(folder.test.images, url.test.images)
    assert folder.train.labels.dtype == np.int64
    assert folder.train.labels.shape == (60, 14 if name == "chestmnist" else 1)
    assert folder.num_classes == len(folder.class_names) == TASKS[name].num_classes
    assert len(folder.split("val")) == 24


def test_the_cache_is_looked_at_without_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOVFM_MEDMNIST_ROOT", str(tmp_path))
    write_archive(tmp_path, "breastmnist", size=64)
    assert medmnist_cache() == tmp_path
    assert load_task("breast", size=64).size_px == 64


@pytest.mark.s3
def test_object_storage(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from shards.store import open_store

    monkeypatch.setenv("BIOVFM_MEDMNIST_ROOT", str(tmp_path / "cache"))
    path = write_archive(tmp_path, "breastmnist")
    open_store(f"{bucket}/medmnist").put_if_absent("breastmnist.npz", path)
    task = load_task("breastmnist", root=f"{bucket}/medmnist")
    assert task.origin == f"{bucket}/medmnist/breastmnist.npz"
    assert task.digest == load_task("breastmnist", root=path).digest
    with pytest.raises(TaskNotFoundError, match=r"retinamnist\.npz"):
        load_task("retinamnist", root=f"{bucket}/medmnist")


def test_stored_members_are_mapped_and_large_ones_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_task("pathmnist", root=write_archive(tmp_path / "plain", "pathmnist", compressed=False))
    packed_path = write_archive(tmp_path / "packed", "pathmnist")
    in_memory = load_task("pathmnist", root=packed_path)
    monkeypatch.setattr(module, "_IN_MEMORY_BYTES", 0)
    for _ in range(2):
        unpacked = load_task("pathmnist", root=packed_path)
    assert isinstance(plain.train.images, np.memmap)
    assert isinstance(unpacked.train.images, np.memmap)
    assert not isinstance(in_memory.train.images, np.memmap)
    for task in (plain, unpacked):
        assert np.array_equal(task.train.images, in_memory.train.images)
        assert np.array_equal(task.test.labels, in_memory.test.labels)


def test_a_missing_task_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(TaskNotFoundError, match=r"octmnist_64\.npz is not in") as caught:
        load_task("oct", size=64, root=tmp_path)
    assert "--data FOLDER" in caught.value.hint
    assert "--skip-missing" in caught.value.hint


@pytest.mark.torch
def test_a_download_that_fails_is_a_missing_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import medmnist

    def no_network(*_: object, **__: object) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setenv("BIOVFM_MEDMNIST_ROOT", str(tmp_path))
    monkeypatch.setattr(medmnist, "BreastMNIST", no_network)
    with pytest.raises(TaskNotFoundError, match="no route to host"):
        load_task("breast")
    with pytest.raises(TaskNotFoundError, match="is not in"):
        load_task("breast", download=False)


def test_names() -> None:
    assert task_names("all") == list(TASKS)
    assert task_names("breast, RetinaMNIST,breast") == ["breastmnist", "retinamnist"]
    with pytest.raises(ConfigError, match="did you mean bloodmnist"):
        task_names("blod")
    with pytest.raises(ConfigError, match="no 32 px images"):
        load_task("breast", size=32)


def test_strange_archives_are_refused(tmp_path: Path) -> None:
    good = dict(np.load(write_archive(tmp_path, "breastmnist")))
    path = tmp_path / "bad" / "breastmnist.npz"
    path.parent.mkdir()
    cases = {
        "expected uint8 of 28 px": {**good, "val_images": good["val_images"].astype(np.float32)},
        "labels go beyond": {**good, "test_labels": good["test_labels"] + 5},
        "60 train images but 59 labels": {**good, "train_labels": good["train_labels"][:-1]},
        "is no MedMNIST archive": {name: array for name, array in good.items() if name != "val_labels"},
    }
    for message, arrays in cases.items():
        np.savez(path, **arrays)
        with pytest.raises(SourceError, match=message):
            load_task("breast", root=path)
    path.write_bytes(b"not a zip")
    with pytest.raises(SourceError, match="is no MedMNIST archive"):
        load_task("breast", root=path)


def test_pickled_labels_are_never_opened(tmp_path: Path) -> None:
    good = dict(np.load(write_archive(tmp_path, "breastmnist")))
    np.savez_compressed(tmp_path / "breastmnist.npz", **{**good, "val_labels": np.array([{"a": 1}] * 24, dtype=object)})
    with pytest.raises(SourceError, match="allow_pickle"):
        load_task("breast", root=tmp_path)
