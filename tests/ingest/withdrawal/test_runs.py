"""A pretraining run that saw a person who withdraws: listed, refused by name, and without a trace after the purge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli import main
from shards.dataset.dataset import Dataset
from shards.store import LocalStore
from tests.ingest.withdrawal.material import (
    IMAGES,
    PATIENTS,
    SECRET,
    group_of,
    identifiers_of,
    take_in,
    traces,
    write_patients,
)
from tests.train.recipes import mae_recipe

pytestmark = [pytest.mark.slow, pytest.mark.torch]


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.process)])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("BIOVFM_SECRET", SECRET.get_secret_value())
    place = str(tmp_path / "d") if request.param == "disk" else f"{request.getfixturevalue('bucket')}/d"
    take_in(write_patients(tmp_path / "raw"), place)
    return place


def test_the_run_is_listed_its_resume_names_the_withdrawal_and_a_lock_without_them_trains(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Dataset.open(url)
    theirs = identifiers_of(dataset, group_of(dataset, "patient-1"))
    lock, run = str(tmp_path / "all.lock.yaml"), tmp_path / "run"
    recipe = tmp_path / "nano.yaml"
    recipe.write_text(mae_recipe(run={"steps": 2, "global_batch": 4}, checkpoint={"every": 1}).to_yaml())
    words = ["--recipe", str(recipe), "--out"]
    assert main(["subset", "create", url, "--out", lock]) == 0
    assert main(["pretrain", lock, *words, str(run)]) == 0
    capsys.readouterr()

    assert main(["withdraw", url, "--group", "patient-1", "--lock", lock, "--run", str(run), "--json"]) == 0
    held = json.loads(capsys.readouterr().out)["held"]
    assert [(holder["path"], holder["held"]) for holder in held] == [(lock, IMAGES), (str(run), IMAGES)]
    assert "train again on a lock without them" in held[1]["advice"]
    assert f"{run}/reconstructions" in held[1]["advice"]

    assert main(["withdraw", url, "--purge", "--grace", "0", "--yes"]) == 0
    capsys.readouterr()
    assert main(["pretrain", lock, *words, str(run), "--set", "run.steps=4"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{IMAGES} samples were withdrawn on" in line
    assert "biovfm subset relock" in line

    assert main(held[0]["advice"].split()[1:]) == 0
    without = str(tmp_path / "all-relocked.lock.yaml")
    assert main(["pretrain", without, *words, str(tmp_path / "again")]) == 0
    capsys.readouterr()
    assert main(["pretrain", without, *words, str(run), "--set", "run.steps=4"]) == 1
    assert "saw other samples" in capsys.readouterr().err
    assert len(dataset.query("SELECT key FROM samples")) == (PATIENTS - 1) * IMAGES

    assert traces(dataset, theirs) == []
    for folder in ("run", "again"):
        assert traces(Dataset(str(tmp_path / folder), LocalStore(tmp_path / folder), {}), theirs) == []
