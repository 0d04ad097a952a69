"""The sub-commands, as a user types them."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.cli import main
from ingest.raw.items import RawFile
from ingest.readers import RawImage, ReadOptions
from ingest.source.spec import parse_spec
from tests.ingest.material import encoded, photo, write_folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "raw", {f"{i}.png": encoded(photo(i)) for i in range(3)} | {"bad.png": b"x"})


@pytest.mark.slow
def test_ingest_prints_one_json_object(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ingest", "mine", str(raw), str(tmp_path / "d"), "--modality", "Fundus", "--deidentified", "--json"]
    assert main([*words, "--workers", "0"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["items"], first["kept"], first["reasons"]) == (4, 3, {"unreadable": 1})
    assert main([*words, "--workers", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["repeated"]


def test_ingest_of_a_private_source_makes_a_secret(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("BIOVFM_SECRET", raising=False)
    assert main(["ingest", "mine", str(raw), str(tmp_path / "d"), "--modality", "CT", "--workers", "0"]) == 0
    assert (tmp_path / "config" / "biovfm" / "secret").stat().st_size == 65
    assert "4 items = 3 kept + 1 rejected" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonsense", "RAW", "D"], "no source 'nonsense'"),
        (["nonsense", "RAW", "D"], "for a source of your own of this name, add --modality"),
        (["nope.yaml", "RAW", "D"], "no file nope.yaml — check the path"),
        (["uls23", "RAW", "D", "--licence", "MIT"], "--licence describes a source of your own"),
        (["mine", "/nowhere", "D", "--modality", "CT", "--deidentified"], "no raw data at /nowhere"),
        (["mine", "RAW", "D", "--modality", "XR", "--deidentified"], "unknown modality 'XR'"),
        (["mine", "RAW", "D", "--modality", "CT", "--num-tasks", "2"], "--num-tasks without --task-index"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], says: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RAW": str(raw), "D": str(tmp_path / "d")}
    assert main(["ingest", *(places.get(word, word) for word in words), "--workers", "0"]) in (1, 2)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("biovfm: ")
    assert says in line


def test_a_dataset_whose_secret_is_missing_says_where_to_bring_it(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BIOVFM_SECRET", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    words = ["ingest", "mine", str(raw), str(tmp_path / "d"), "--modality", "CT", "--workers", "0"]
    assert main(words) == 0
    capsys.readouterr()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    said = []
    for command in (words, ["withdraw", str(tmp_path / "d"), "--group", "x"]):
        assert main(command) == 2
        said.append(capsys.readouterr().err.strip().splitlines()[-1])
    assert "was made with a secret, and there is none here — bring it back to" in said[0]
    assert said[0] == said[1]


def test_every_option_of_ingest_has_a_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["ingest", "--help"]) == 0
    assert "NAME=TYPE where the values do not say it" in " ".join(capsys.readouterr().out.split())


def test_settings_file_is_checked(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text("quality: {min_side: 3}\n")
    words = ["ingest", "m", str(raw), str(tmp_path / "d"), "--modality", "CT", "--deidentified"]
    assert main([*words, "--settings", str(tmp_path / "s.yaml")]) == 2
    assert "did you mean 'min_side_px'" in capsys.readouterr().err


def test_sources_list_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "--modality", "octa", "--json"]) == 0
    assert {s["id"] for s in json.loads(capsys.readouterr().out)["sources"]} == {"octa-500", "rose-1", "rossa"}
    assert main(["sources", "list", "--overlap", "chestmnist", "--json"]) == 0
    assert [s["id"] for s in json.loads(capsys.readouterr().out)["sources"]] == ["chestxray-14"]


def test_sources_show_says_what_to_get_and_gives_yaml_to_start_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "show", "patchcamelyon"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(part in said for part in ("https://patchcamelyon", "CC0", "_train_x.h5", "262,144"))
    assert main(["sources", "show", "patchcamelyon", "--yaml"]) == 0
    text = capsys.readouterr().out
    assert parse_spec(text, name="x").id == "patchcamelyon"
    assert yaml.safe_load(text)["modality"] == ["Microscopy"]


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "SourceSpec"


def code_of(words: list[str]) -> int:
    """The exit code of a command that fails after it has printed its answer."""
    with pytest.raises(SystemExit) as failed:
        main(words)
    return int(failed.value.code or 0)


@pytest.mark.slow
def test_a_job_that_keeps_nothing_and_knows_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_folder(tmp_path / "raw", {"a.png": b"nothing", "b.png": b""})
    words = ["ingest", "mine", str(raw), str(tmp_path / "d"), "--modality", "CT", "--deidentified", "--workers", "0"]
    assert code_of(words) == 1
    shown = capsys.readouterr()
    assert "nothing was kept" in shown.err
    assert "2 items = 0 kept + 2 rejected" in " ".join(shown.out.split())
    assert code_of([*words, "--encoding", "short_side_px=64"]) == 1
    write_folder(raw, {"c.png": encoded(photo(1))})
    assert main([*words, "--encoding", "short_side_px=32"]) == 0


@pytest.mark.slow
def test_files_that_cannot_be_read_now_fail_the_command_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ingest.readers import images

    read = images.read

    def refused(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
        if raw.name == "1.png":
            raise PermissionError(errno.EACCES, "no")
        return read(raw, options)

    raw = write_folder(tmp_path / "raw", {f"{n}.png": encoded(photo(n)) for n in range(3)})
    words = ["ingest", "mine", str(raw), str(tmp_path / "d"), "--modality", "CT", "--deidentified", "--workers", "0"]
    with monkeypatch.context() as broken:
        broken.setattr(images, "read", refused)
        assert code_of(words) == 1
        assert "1 raw file could not be read now" in capsys.readouterr().err
        assert main([*words, "--allow-incomplete", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["files"], report["read"], report["pending"], report["kept"]) == (3, 2, 1, 2)
        assert code_of(words) == 1
    assert main(words) == 0
    assert "3 items = 3 kept" in " ".join(capsys.readouterr().out.split())


def test_negative_workers_are_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_folder(tmp_path / "raw", {"a.png": encoded(photo(1))})
    words = ["ingest", "mine", str(raw), str(tmp_path / "d"), "--modality", "CT", "--deidentified"]
    assert main([*words, "--workers", "-5"]) == 2
    assert "-5 workers" in capsys.readouterr().err
