"""Licence, anatomy and label of tables and lists are looked at before they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from infra.cli import main
from ingest.columns.stated_words import StatedWords, WordCounter, check_words, why_words_are_refused
from ingest.job.identity import rules_of
from ingest.job.list import check_told, list_raw
from ingest.job.run import run_job
from ingest.job.survey import survey
from ingest.picture.encoding import Encoding
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec, from_flags
from shards.errors import ConfigError
from tests.ingest.material import encoded, photo, write_folder

NAMES = ["img0.png,Knie Frau Ahlers,CC0-1.0", "img1.png,Knie,CC0-1.0"]
DATED = [f"img{n}.png,Herz,geb. 12.03.194{n}: unauffällig" for n in range(4)]
PLAIN = ["img0.png,Knee,CC0-1.0", "img1.png,Hip,CC0-1.0"]


def rows(header: str, lines: list[str]) -> bytes:
    return "\n".join([header, *lines, ""]).encode()


def folder_of(tmp_path: Path, lines: list[str], header: str = "file,organ,what") -> Path:
    files = {line.partition(",")[0]: encoded(photo(n)) for n, line in enumerate(lines)}
    return write_folder(tmp_path / "raw", files | {"t.csv": rows(header, lines)})


def spec_of(*, deidentified: bool = False, **table: Any) -> SourceSpec:
    layout = {"include": ["*.png"], "tables": [{"path": "t.csv", "key": "file", **table}]}
    return from_flags(name="mine", modality="CT", deidentified=deidentified, layout=layout)


def told(folder: Path, spec: SourceSpec) -> None:
    check_told(list_raw(str(folder), spec, IngestSettings()), spec)


@pytest.mark.parametrize(
    ("table", "lines", "says"),
    [
        ({"label": "what"}, DATED, r"t\.csv: refused.*what \(label\): it holds dates.*`allow: \[\"what\"\]` beside"),
        ({"licence": "what"}, DATED, r"what \(licence\): it holds dates.*take `licence` out"),
        ({"anatomy": "organ"}, NAMES, r"organ \(anatomy\): it looks like names"),
        ({"anatomy": "organ", "label": "what"}, [*NAMES, *DATED], r"what \(label\).*`anatomy` and `label`"),
    ],
)
def test_words_of_a_table_that_may_name_a_person_are_refused(
    tmp_path: Path, table: dict[str, Any], lines: list[str], says: str
) -> None:
    folder, spec = folder_of(tmp_path, lines), spec_of(**table)
    with pytest.raises(ConfigError, match=says):
        told(folder, spec)
    told(folder, spec_of(deidentified=True, **table))
    told(folder, spec_of(**table, allow=[table[use] for use in table]))


def test_plain_words_are_taken(tmp_path: Path) -> None:
    told(folder_of(tmp_path, PLAIN), spec_of(anatomy="organ", licence="what"))


def test_the_words_that_are_stored_are_looked_at_and_not_those_of_the_table(tmp_path: Path) -> None:
    values = {"what": {line.rpartition(",")[2]: "healthy" for line in DATED}}
    told(folder_of(tmp_path, DATED), spec_of(label="what", values=values))


def test_the_whole_column_counts_and_not_only_the_rows_of_files(tmp_path: Path) -> None:
    lines = [*PLAIN, *(f"else{n}.png,Dr. Boysen,x" for n in range(3))]
    folder = folder_of(tmp_path, lines)
    for n in range(3):
        (folder / f"else{n}.png").unlink()
    with pytest.raises(ConfigError, match="organ"):
        told(folder, spec_of(anatomy="organ"))


def test_nothing_is_stored_before(tmp_path: Path) -> None:
    folder, spec = folder_of(tmp_path, DATED), spec_of(label="what")
    settings = IngestSettings(secret=SecretStr("of the hospital"))
    with pytest.raises(ConfigError, match="it holds dates"):
        run_job(spec, str(folder), str(tmp_path / "d"), workers=0, settings=settings)
    assert not (tmp_path / "d").exists()
    [problem] = survey(str(folder), spec, settings).problems
    assert "it holds dates" in problem


def test_what_is_allowed_is_no_other_job() -> None:
    digests = {
        rules_of(spec_of(label="what", allow=allow), IngestSettings(), Encoding(), key_check="")
        for allow in ([], ["what"])
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ({"tables": [{"path": "t.csv", "key": "file", "label": "a", "allow": ["b"]}]}, "b is none of them"),
        ({"allow": ["label"]}, "`allow` beside `include` are those of a list"),
        ({"reader": "list", "allow": ["name"]}, "allow"),
    ],
)
def test_mistakes_in_the_yaml_are_named(layout: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_flags(name="mine", modality="CT", layout=layout)


@pytest.mark.slow
def test_a_list_without_any_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = folder_of(tmp_path, NAMES, "path,Body_Part,license")
    words = ["ingest", "mine", str(folder / "t.csv"), str(tmp_path / "d"), "--modality", "CT", "--workers", "0"]
    words += ["--reader", "list"]
    assert main(words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "body_part (anatomy): it looks like names" in line
    assert "--allow body_part" in line
    assert not (tmp_path / "d").exists()
    assert main([*words, "--allow", "label"]) == 2
    assert main([*words, "--allow", "body_part"]) == 0
    assert main([*words, "--deidentified"]) == 0


def test_a_list_whose_yaml_allows_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, NAMES, "path,body_part,license")
    layout = {"reader": "list", "include": ["t.csv"]}
    with pytest.raises(ConfigError, match=r"^t\.csv: refused"):
        told(folder, from_flags(name="mine", modality="CT", layout=layout))
    told(folder, from_flags(name="mine", modality="CT", layout={**layout, "allow": ["body_part"]}))


def test_nothing_is_no_word_and_only_what_is_stored_counts() -> None:
    counter = WordCounter()
    for word in ("", "Frau Ahlers"):
        counter.add("label", "dx", word)
        counter.add("group", "patient", word)
    [words] = counter.done("t.csv", allow=(), of_list=False)
    assert (words.use, words.header, dict(words.counts)) == ("label", "dx", {"Frau Ahlers": 1})
    with pytest.raises(ConfigError, match="dx"):
        check_words([words])
    check_words([StatedWords(table="t", use="label", header="dx", counts=words.counts, allowed=True, of_list=False)])


@pytest.mark.parametrize(
    ("counts", "refused"),
    [
        ({f"finding {chr(97 + n)}": 1 for n in range(26)}, True),
        ({f"finding {chr(97 + n)}": 9 for n in range(26)}, False),
        ({"n/a": 3}, False),
    ],
)
def test_how_often_a_word_comes_counts(counts: dict[str, int], *, refused: bool) -> None:
    assert bool(why_words_are_refused("dx", counts)) is refused
