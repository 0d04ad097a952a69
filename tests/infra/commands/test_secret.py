"""`biovfm secret`: a backup that its owner alone reads, a check, and what hangs on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli import main
from tests.ingest.material import ingest, public_spec
from tests.ingest.withdrawal.material import SECRET, take_in, write_patients


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("BIOVFM_SECRET", SECRET.get_secret_value())
    take_in(write_patients(tmp_path / "raw", [1, 2]), str(tmp_path / "d"))
    return str(tmp_path / "d")


@pytest.mark.slow
def test_a_backup_is_written_once_for_its_owner_and_belongs(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "backup"
    assert main(["secret", "backup", url, "--out", str(out)]) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert main(["secret", "backup", url, "--out", str(out)]) == 0
    other = tmp_path / "other"
    other.write_text("something else\n")
    assert main(["secret", "backup", url, "--out", str(other)]) == 2
    assert main(["secret", "check", url, "--backup", str(other)]) == 1
    monkeypatch.delenv("BIOVFM_SECRET")
    assert main(["secret", "check", url]) == 1
    assert main(["secret", "backup", url, "--out", str(tmp_path / "none")]) == 2
    assert main(["secret", "check", url, "--backup", str(out), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out.splitlines()[-1])["verdict"] == "belongs"
    assert SECRET.get_secret_value() not in told.out + told.err
    (tmp_path / "config" / "biovfm").mkdir(parents=True)
    (tmp_path / "config" / "biovfm" / "secret").write_bytes(out.read_bytes())
    assert main(["secret", "check", url]) == 0, "a copy of the backup is the secret"


@pytest.mark.slow
def test_explain_says_what_hangs_on_it(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["secret", "explain", url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sources"] == [{"source": "ward", "samples": 6, "groups": 2, "raw_paths": "hidden"}]
    assert (told["verdict"], told["tombstones"]) == ("belongs", 0)
    assert main(["secret", "explain", url]) == 0
    text = capsys.readouterr().out
    assert "BIOVFM_SECRET" in text
    assert "another group id" in text


def test_a_lost_secret_is_said_before_work_starts_and_no_new_one_is_made(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BIOVFM_SECRET")
    raw = str(tmp_path / "raw")
    table = tmp_path / "ages.csv"
    table.write_text("patient,age\npatient-1,60\n")
    for words in (
        ["columns", "add", url, str(table), "--by", "group", "--on", "patient"],
        ["ingest", "ward", raw, url, "--modality", "CT", "--workers", "0"],
        ["withdraw", url, "--group", "patient-1"],
    ):
        assert main(words) == 2
        assert "secret" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "config" / "biovfm" / "secret").exists()


@pytest.mark.slow
def test_public_samples_get_their_columns_without_the_secret_and_a_note_says_what_is_left_out(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(write_patients(tmp_path / "open", [8]), Path(url), public_spec("open", grouping={"by": "folder"}))
    monkeypatch.delenv("BIOVFM_SECRET")
    table = tmp_path / "ages.csv"
    table.write_text("patient,age\npatient-8,60\n")
    assert main(["columns", "add", url, str(table), "--by", "group", "--on", "patient"]) == 0
    assert "samples of ward match by key alone" in capsys.readouterr().err
