"""`biovfm withdraw`: what it says, asks and returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.cli import main
from shards.dataset.dataset import Dataset
from tests.ingest.withdrawal.material import IMAGES, SECRET, group_of, identifiers_of, take_in, traces, write_patients

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("BIOVFM_SECRET", SECRET.get_secret_value())
    take_in(write_patients(tmp_path / "raw"), str(tmp_path / "d"))
    return str(tmp_path / "d")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["withdraw", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_whole_way(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.open(url)
    theirs = identifiers_of(dataset, group_of(dataset, "patient-1"))
    lock, other = str(tmp_path / "old.lock.yaml"), str(tmp_path / "few.lock.yaml")
    key = dataset.query("SELECT key FROM samples WHERE group_id != ?", params=[theirs["group"][0].decode()])["key"][0]
    assert main(["subset", "create", url, "--out", lock]) == 0
    assert main(["subset", "create", url, "--where", f"key = '{key}'", "--out", other]) == 0
    words = (url, "--group", "patient-1", "--lock", lock, "--lock", other)
    tried = told(capsys, *words, "--dry-run")
    assert (tried["would_withdraw"], tried["withdrawn"], tried["version"]) == (IMAGES, None, 0)
    done = told(capsys, *words)
    assert done["withdrawn"]["num_samples"] == IMAGES
    assert [holder["held"] for holder in done["held"]] == [IMAGES, 0]
    assert done["held"][0]["advice"] == f"biovfm subset relock {lock} --out {tmp_path}/old-relocked.lock.yaml"
    assert main(["subset", "verify", lock]) == 0, "until the purge"
    assert told(capsys, *words)["withdrawn"]["repeated"]
    assert main(["withdraw", url, "--purge", "--grace", "0"]) == 2
    assert "add --yes" in capsys.readouterr().err
    purged = told(capsys, url, "--purge", "--grace", "0", "--yes")["purged"]
    assert len(purged["names"]) == 1
    assert traces(dataset, theirs) == []
    assert main(["subset", "verify", lock]) == 1
    line = capsys.readouterr().err.strip()
    assert len(line.splitlines()) == 1
    assert f"{IMAGES} withdrawn" in line
    assert "biovfm subset relock" in line
    assert main(done["held"][0]["advice"].split()[1:]) == 0
    assert main(["subset", "verify", str(tmp_path / "old-relocked.lock.yaml")]) == 0
    assert main(["verify", url, "--deep"]) == 0


def test_texts_for_people(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["withdraw", url, "--group", "patient-2", "--dry-run"]) == 0
    assert f"would withdraw {IMAGES} samples" in capsys.readouterr().out
    assert main(["withdraw", url, "--group", "patient-2", "--purge", "--yes"]) == 0
    text = capsys.readouterr().out
    assert f"withdrew {IMAGES} samples" in text
    assert "waits until" in text
    assert main(["withdraw", url, "--group", "patient-2"]) == 0
    assert "withdrawn before" in capsys.readouterr().out
    assert main(["withdraw", url, "--group", "patient-2", "--dry-run"]) == 0
    assert "would withdraw 0 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        ([], "nothing to withdraw", 2),
        (["--key", "ward-0"], "nothing in", 1),
        (["--key", "ward-0", "--dry-run"], "nothing in", 1),
        (["--group", "nobody", "--dry-run"], "nothing in", 1),
        (["--purge", "--grace=-1"], "not negative", 2),
        (["--group", "patient-1", "--run", "/nowhere"], "no run folder", 2),
    ],
)
def test_mistakes_are_one_line(
    url: str, words: list[str], says: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["withdraw", url, *words]) == code
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert Dataset.open(url).version() == 0


def test_a_run_is_known_by_what_its_checkpoint_streamed(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from shards.subset.lock import Selection, create

    dataset = Dataset.open(url)
    for name, order in (("run", create(dataset, Selection()).order), ("strange", "sha256:0")):
        folder = tmp_path / name / "checkpoints" / "step-10"
        folder.mkdir(parents=True)
        (tmp_path / name / "recipe.yaml").write_text("method: mae\n")
        (folder / "meta.json").write_text(json.dumps({"stream": {"order": order}}))
    runs = ("--run", str(tmp_path / "run"), "--run", str(tmp_path / "strange"))
    held = told(capsys, url, "--group", "patient-1", *runs)["held"]
    assert [holder["held"] for holder in held] == [IMAGES, None]
