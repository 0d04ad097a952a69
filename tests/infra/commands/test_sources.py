"""`biovfm sources check` and `new`, and the line that `ingest` says about its source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli import main
from ingest.source.spec import load_spec
from tests.ingest.material import encoded, photo, write_folder, zip_of
from tests.ingest.source.test_trees import ALL

SCREEN_LINES = 30
PNG = encoded(photo(0))


@pytest.mark.parametrize("name", sorted(ALL))
def test_check_explains_every_source_within_a_screen(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = ALL[name].write(tmp_path / "raw")
    source = name.partition("#")[0]
    code = main(["sources", "check", source, str(raw), "--deep"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= SCREEN_LINES
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    assert code == (1 if any("PROBLEM" in line for line in lines) else 0)
    text = "\n".join(lines)
    assert all(label in text for label in (source, "taken", "images", "licence", "access", "layout"))
    assert any(path[-40:] in text for path in ALL[name].images)


def test_check_of_ones_own_yaml_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_folder(tmp_path / "raw", {"a.zip": zip_of({"i/1.png": PNG, "m/1.png": PNG})})
    text = (
        "id: mine\nmodality: [US]\nlayout: {downloads: [a.zip], include: ['**/i/*'], left_out: {masks: ['**/m/*']}}\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["sources", "check", str(tmp_path / "mine.yaml"), str(raw), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True
    assert (said["num_files"], said["left_out"], said["downloads"]) == (1, {"masks": 1}, ["a.zip"])


def test_check_says_what_is_missing_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = ALL["chestxray-14"].write(tmp_path / "raw")
    assert main(["sources", "check", "chestxray-14", str(raw)]) == 1
    said = capsys.readouterr().out
    assert "missing: images_{003..011}.tar.gz" in said
    assert "--deep" in said


@pytest.mark.parametrize(
    ("words", "drafted"), [(["."], "id: our-ct"), (["../Our CT"], "id: our-ct"), ([".", "--name", "a-b"], "id: a-b")]
)
def test_a_new_source_is_called_as_its_folder(
    words: list[str],
    drafted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(write_folder(tmp_path / "Our CT", {"1.png": PNG}))
    assert main(["sources", "new", *words]) == 0
    assert drafted in capsys.readouterr().out.splitlines()


def test_a_name_that_ingest_would_refuse_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "new", str(write_folder(tmp_path, {"1.png": PNG})), "--name", "Bad Name"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "'Bad Name' is no id of a source — use [0-9a-z_-]+ only" in shown.err


def test_check_of_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "check", "hrf", str(tmp_path / "gone")]) == 1
    assert "no raw data at" in capsys.readouterr().err


@pytest.mark.parametrize(("expected", "warns"), [(2, False), (40, True)])
def test_ingest_says_how_many_images_were_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], expected: int, *, warns: bool
) -> None:
    files = {f"i/{n}.png": encoded(photo(n)) for n in range(2)} | {"m/0.png": PNG}
    raw = write_folder(tmp_path / "raw", files)
    layout = "{include: ['i/*'], left_out: {masks: ['m/*']}}"
    text = f"id: mine\nmodality: [US]\ndeidentified: true\nexpected_images: {expected}\nlayout: {layout}\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["ingest", str(tmp_path / "mine.yaml"), str(raw), str(tmp_path / "d"), "--workers", "0"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"mine: 2 of {expected} expected images" in said
    assert "left out: masks 1" in said
    assert ("warning: mine" in said and "sources check" in said) == warns


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vindr-mammo", ("breast-level_annotations.csv says group and selects the files", "commercial forbidden")),
        ("octa-500", ("masks: **/GT_*/**", "The eyes of the test sets", "(the source gives 1,050)")),
        ("kvasir-capsule", ("Reader video, images", "sources check kvasir-capsule", "Smedsrud")),
        ("les-av", ("grouped by file", "downloads les-av.zip")),
    ],
)
def test_show_says_how_the_raw_folder_looks(
    name: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sources", "show", name]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(word.lower() in said.lower() for word in words), said


@pytest.mark.parametrize("name", ["fastmri", "rp3d-diagds", "patchcamelyon"])
def test_show_yaml_is_the_same_source(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "show", name, "--yaml"]) == 0
    (tmp_path / "copy.yaml").write_text(capsys.readouterr().out)
    assert load_spec(tmp_path / "copy.yaml") == load_spec(name)


def test_schema_describes_parts_tables_and_axes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)["$defs"]
    assert {"include", "reader", "frames", "modality", "grouping", "fallback"} <= set(schema["Part"]["properties"])
    assert {"path", "key", "match", "where", "select", "per_frame"} <= set(schema["Table"]["properties"])
    assert "axes" in schema["FrameRule"]["properties"]
    assert all(schema[name]["additionalProperties"] is False for name in ("Part", "Table", "Layout", "FrameRule"))
