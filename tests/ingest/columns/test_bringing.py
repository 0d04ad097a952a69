"""Columns that come with a job: of a source's tables and of lists, checked before anything is read, never lost."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.cli import main
from ingest.columns import bringing
from ingest.columns.data_list import list_columns
from ingest.job.identity import rules_of
from ingest.job.run import run_job
from ingest.job.survey import survey
from ingest.picture.encoding import Encoding
from ingest.settings import IngestSettings
from ingest.source.data_list import load_list
from ingest.source.layout import OwnColumn
from ingest.source.spec import SourceSpec, load_spec
from shards.dataset.columns import columns_version
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SourceError
from shards.stream import Stream
from shards.subset import Selection, create
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder, zip_of

pytestmark = pytest.mark.slow

TABLE: dict[str, Any] = {"path": "entries.csv", "key": "Image Index", "columns": {"age": "Patient Age", "sex": "Sex"}}


def spec_of(*source_tables: dict[str, Any], **more: Any) -> SourceSpec:
    return public_spec(layout={"include": ["**/*.png"], "tables": list(source_tables)}, **more)


def pictures(*names: str) -> dict[str, bytes]:
    return {name: encoded(photo(sum(name.encode()))) for name in names}


def entries(*rows: str, header: str = "Image Index;Patient Age;Sex;Patient ID") -> bytes:
    return "".join(f"{line}\n" for line in (header, *rows)).encode("cp1252")


def values(dataset: Path | str, *names: str) -> dict[str, tuple[Any, ...]]:
    """Raw path and frame → the values of own columns."""
    opened = Dataset.open(str(dataset))
    table = opened.table("columns")
    assert table is not None
    own = {row["key"]: row for row in table.to_pyarrow_table().to_pylist()}
    rows = opened.query("SELECT key, raw_path, raw_frame FROM samples").to_pylist()
    return {
        row["raw_path"] + row["raw_frame"]: tuple(own.get(row["key"], {}).get(name) for name in names) for row in rows
    }


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three pictures and a table with a row of each, a row of none, and one with nothing in it."""
    files = {
        "entries.csv": entries("a.png;63;w;7", "b.png;;m;7", "x.png;50;m;8", ";40;m;9"),
        **pictures("a.png", "b.png"),
    }
    return write_folder(tmp_path / "raw", files | {"z.zip": zip_of(pictures("c.png"))})


def test_they_come_with_the_job_and_are_counted(raw: Path, tmp_path: Path) -> None:
    report = ingest(raw, tmp_path / "d", spec_of(TABLE))
    [brought] = report.columns
    assert (brought.table, brought.kinds) == ("entries.csv", {"age": "int", "sex": "category"})
    assert (brought.rows, brought.matched, brought.samples, brought.without) == (4, 2, 2, 1)
    assert brought.left_out == {"matches nothing": 2}
    assert list(brought.first_left_out) == [3, 4]
    assert json.loads(json.dumps(report.to_dict()))["columns"][0]["version"] == 0
    paths = {"a.png": (63, "w"), "b.png": (None, "m"), "zip://c.png::z.zip": (None, None)}
    assert values(tmp_path / "d", "age", "sex") == paths
    lock = create(Dataset.open(str(tmp_path / "d")), Selection(where="age > 60 AND sex = 'w'"))
    assert (lock.num_samples, lock.columns_version) == (1, 0)
    lock.write(tmp_path / "a.lock.yaml")
    with Stream(tmp_path / "a.lock.yaml", global_batch=1, columns=["age"], num_epochs=1) as stream:
        assert [batch.columns["age"].values.tolist() for batch in stream] == [[63]]


def test_nothing_is_written_again_where_nothing_is_new(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d", spec_of(TABLE))
    report = ingest(raw, tmp_path / "d", spec_of(TABLE))
    assert report.repeated
    assert report.columns[0].samples == 2
    assert columns_version(Dataset.open(str(tmp_path / "d"))) == 0


def test_they_are_no_part_of_what_a_job_is(raw: Path, tmp_path: Path) -> None:
    plain = spec_of({**TABLE, "columns": {}, "group": ["Patient ID"]})
    brings = spec_of({**TABLE, "group": ["Patient ID"]})
    rules = [rules_of(spec, IngestSettings(), Encoding(), key_check="") for spec in (plain, brings)]
    assert rules[0] == rules[1]
    only = [rules_of(spec, IngestSettings(), Encoding(), key_check="") for spec in (spec_of(TABLE), spec_of())]
    assert only[0] == only[1]
    assert ingest(raw, tmp_path / "d", plain).columns == ()
    report = ingest(raw, tmp_path / "d", brings)  # told later: they come without reading an image
    assert report.repeated
    assert values(tmp_path / "d", "age")["a.png"] == (63,)


def test_a_run_that_ends_between_the_commits_is_completed_by_the_next(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bringing, "write_columns", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(raw, tmp_path / "d", spec_of(TABLE))
    assert columns_version(Dataset.open(str(tmp_path / "d"))) is None
    assert len(Dataset.open(str(tmp_path / "d")).jobs()) == 1
    report = ingest(raw, tmp_path / "d", spec_of(TABLE))
    assert report.repeated
    assert values(tmp_path / "d", "age")["a.png"] == (63,)


@pytest.mark.process
def test_a_process_that_is_killed_between_the_commits(raw: Path, tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(spec_of(TABLE).model_dump(mode="json", exclude_defaults=True)))
    words = ["ingest", str(path), str(raw), str(tmp_path / "d"), "--workers", "0", "--json"]
    kill = (
        "import os, sys; from infra.cli import main; from ingest.columns import bringing; "
        "bringing.write_columns = lambda *_, **__: os.kill(os.getpid(), 9); sys.exit(main(sys.argv[1:]))"
    )
    killed = subprocess.run([sys.executable, "-c", kill, *words], check=False, capture_output=True)
    assert killed.returncode == -9
    assert columns_version(Dataset.open(str(tmp_path / "d"))) is None
    again = subprocess.run([sys.executable, "-m", "infra.cli", *words], check=True, capture_output=True)
    told = json.loads(again.stdout)
    assert (told["repeated"], told["columns"][0]["samples"], told["columns"][0]["version"]) == (True, 2, 0)


@pytest.mark.process
def test_they_come_into_a_bucket(raw: Path, bucket: str) -> None:
    url = f"{bucket}/d"
    for version in (0, 1):
        report = run_job(spec_of(TABLE), str(raw), url, workers=0)
        assert report.columns[0].version == version
        assert values(url, "age")["a.png"] == (63 + version,)
        write_folder(raw, {"entries.csv": entries("a.png;64;w;7", "b.png;;m;7")})


def test_a_grown_source_brings_those_of_new_and_changed_files(raw: Path, tmp_path: Path) -> None:
    spec = spec_of(TABLE)
    ingest(raw, tmp_path / "d", spec)
    write_folder(raw, pictures("n.png") | {"b.png": encoded(photo(1234))})
    table = entries("a.png;64;w;7", "b.png;71;m;7", "n.png;20;w;8")
    write_folder(raw, {"entries.csv": table})
    report = ingest(raw, tmp_path / "d", spec)
    assert (report.known, report.read, report.changed) == (2, 2, 1)
    assert report.columns[0].replaced == {"age": 1}
    found = values(tmp_path / "d", "age", "sex")
    assert found["a.png"] == (64, "w")
    assert found["b.png"] == (71, "m")
    assert found["n.png"] == (20, "w")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"who": "Patient ID"}, "Patient ID: its header speaks of identifiers"),
        ({"born": "Geburtsdatum"}, "a date of birth"),
        ({"age": {"header": "Sex", "type": "int"}}, "holds values that are no int"),
        ({"select": "Patient Age"}, "cannot be the name of a column"),
    ],
)
def test_what_may_name_a_person_or_does_not_fit_is_refused_before_anything_is_read(
    tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    table = entries("a.png;63;w;7;1.2.1950", header="Image Index;Patient Age;Sex;Patient ID;Geburtsdatum")
    raw = write_folder(tmp_path / "raw", {"entries.csv": table, **pictures("a.png")})
    with pytest.raises(ConfigError, match=says):
        ingest(raw, tmp_path / "d", spec_of({**TABLE, "columns": columns}))
    assert not (tmp_path / "d").exists()
    [problem] = survey(str(raw), spec_of({**TABLE, "columns": columns}), IngestSettings()).problems
    assert says in problem


def test_what_the_yaml_allows_comes(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {"entries.csv": entries("a.png;63;w;7"), **pictures("a.png")})
    columns = {"number": {"header": "Patient ID", "allow": True, "type": "category"}}
    ingest(raw, tmp_path / "d", spec_of({**TABLE, "columns": columns}))
    assert values(tmp_path / "d", "number") == {"a.png": ("7",)}


def test_a_missing_header_is_named(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no column Patient age.*did you mean Patient Age"):
        ingest(raw, tmp_path / "d", spec_of({**TABLE, "columns": {"age": "Patient age"}}))


def test_another_type_than_that_of_the_column_that_is_there(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d", spec_of(TABLE))
    other = {"entries.csv": entries("o.png;63,5;w;7"), **pictures("o.png")}
    with pytest.raises(ConfigError, match="is float, the column that is there int"):
        ingest(write_folder(tmp_path / "other", other), tmp_path / "d", spec_of(TABLE, name="other"))
    third = {"entries.csv": entries("p.png;080;1;7"), **pictures("p.png")}
    report = ingest(write_folder(tmp_path / "third", third), tmp_path / "d", spec_of(TABLE, name="third"))
    assert report.columns[0].kinds == {"age": "int", "sex": "category"}  # those that are there, not those it looks like
    assert values(tmp_path / "d", "age", "sex")["p.png"] == (80, "1")


def test_rows_that_fit_several_files_or_contradict_each_other_give_nothing(tmp_path: Path) -> None:
    table = entries("a.png;63;w;7", "b.png;50;m;8", "b.png;51;m;8", "c.png;20;w;9", "c.png;20;w;9")
    files = {"entries.csv": table, "one/a.png": encoded(photo(1)), "two/a.png": encoded(photo(2))}
    raw = write_folder(tmp_path / "raw", files | pictures("b.png", "c.png"))
    [brought] = ingest(raw, tmp_path / "d", spec_of(TABLE)).columns
    assert brought.left_out == {"contradicts another row": 2, "matches several groups or files": 1}
    assert {path: age for path, (age,) in values(tmp_path / "d", "age").items() if age} == {"c.png": 20}


def test_a_row_of_a_patient_is_about_all_files_of_the_pattern(tmp_path: Path) -> None:
    table = {**TABLE, "key": "Patient ID", "match": "pattern", "pattern": r"^p(\d+)/"}
    files = pictures("p7/a.png", "p7/b.png", "p8/c.png")
    raw = write_folder(tmp_path / "raw", {"entries.csv": entries("x;63;w;7", "y;50;m;8"), **files})
    [brought] = ingest(raw, tmp_path / "d", spec_of(table)).columns
    assert (brought.matched, brought.samples) == (2, 3)
    assert values(tmp_path / "d", "age") == {"p7/a.png": (63,), "p7/b.png": (63,), "p8/c.png": (50,)}


def test_hidden_paths_and_words_of_ours(raw: Path, tmp_path: Path) -> None:
    table = {**TABLE, "columns": {"sex": "Sex"}, "values": {"Sex": {"w": "F", "m": "M"}}}
    settings = IngestSettings.model_validate({"secret": "of the hospital"})
    spec = spec_of(table).model_copy(update={"deidentified": False})
    run_job(spec, str(raw), str(tmp_path / "d"), workers=0, settings=settings)
    assert sorted(map(str, values(tmp_path / "d", "sex").values())) == ["('F',)", "('M',)", "(None,)"]
    assert not any("a.png" in path for path in values(tmp_path / "d", "sex"))


def test_a_table_by_the_numbers_of_the_images_of_a_file(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    np.save(tmp_path / "images.npy", np.stack([photo(number) for number in range(4)]))
    rows = entries(*(f"{number};{50 + number};w;1" for number in range(4)))
    raw = write_folder(tmp_path / "raw", {"meta.csv": rows, "images.npy": (tmp_path / "images.npy").read_bytes()})
    table = {"path": "meta.csv", "per_frame": True, "of": ["images.npy"], "columns": {"age": "Patient Age"}}
    spec = public_spec(layout={"include": ["*.npy"], "tables": [table]})
    [brought] = ingest(raw, tmp_path / "d", spec).columns
    assert (brought.matched, brought.samples, brought.without) == (4, 4, 0)
    assert [age for _, (age,) in sorted(values(tmp_path / "d", "age").items())] == [50, 51, 52, 53]
    [column] = survey(str(raw), spec, IngestSettings()).columns
    assert (column.filled, column.missing) == (4, 0)


def test_sources_check_counts_them(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(spec_of(TABLE).model_dump(mode="json", exclude_defaults=True)))
    assert main(["sources", "check", str(path), str(raw)]) == 0
    told = capsys.readouterr().out
    assert "age (int), Patient Age of entries.csv: 1 filled, 2 missing" in told
    assert "sex (category), Sex of entries.csv: 2 filled, 1 missing" in told
    assert main(["sources", "show", str(path), "--yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["layout"]["tables"][0]["columns"]["age"] == {"header": "Patient Age"}
    assert main(["sources", "show", str(path)]) == 0
    assert "entries.csv brings age, sex beside the index" in capsys.readouterr().out


def test_a_list_brings_the_columns_that_the_user_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "path;Alter;Größe (cm);Name\nimages\\a.png;63;171,5;x\nzip://c.png::z.zip;50;160;y\n"
    files = {"list.csv": text.encode("cp1252"), "z.zip": zip_of(pictures("c.png"))}
    raw = write_folder(tmp_path / "raw", files | pictures("images/a.png"))
    words = ["ingest", "mine", str(raw / "list.csv"), str(tmp_path / "d"), "--modality", "US", "--reader", "list"]
    words += ["--deidentified", "--workers", "0"]
    assert main(words) == 0
    assert "Alter" in capsys.readouterr().err
    assert columns_version(Dataset.open(str(tmp_path / "d"))) is None
    assert main([*words, "--column", "age=Alter", "--column", "Größe (cm)", "--type", "age=float"]) == 0
    told = capsys.readouterr()
    assert "2  with age (float), groesse_cm (float) of list.csv" in told.out
    assert "that are not used: Name" in told.err or "repeated" not in told.err
    found = values(tmp_path / "d", "age", "groesse_cm")
    assert found == {"images/a.png": (63.0, 171.5), "zip://c.png::z.zip": (50.0, 160.0)}
    assert main([*words, "--column", "Name"]) == 2
    assert "its header speaks of names" in capsys.readouterr().err


def test_an_exported_list_brings_them_back(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest(raw, tmp_path / "d", spec_of(TABLE))
    capsys.readouterr()
    assert main(["subset", "export", str(tmp_path / "d"), "--format", "jsonl"]) == 0
    listed = tmp_path / "list.jsonl"
    listed.write_text(capsys.readouterr().out)
    own = {"age": OwnColumn(header="age"), "sex": OwnColumn(header="sex")}
    report = run_job(
        spec_of(),
        str(raw),
        str(tmp_path / "again"),
        workers=0,
        listed=load_list(listed, "test"),
        list_columns=list_columns(listed, "test", own),
    )
    assert (report.kept, report.columns[0].samples) == (3, 3)
    assert values(tmp_path / "again", "age", "sex") == values(tmp_path / "d", "age", "sex")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--column", "age=Alter"], "--column is about columns of a list"),
        (["--type", "sex=int"], "`type` stands beside the `header` of a column"),
        (["--allow", "Findings"], "`allow: true` stands beside the `header` of a column"),
    ],
)
def test_columns_of_a_source_that_is_no_list_are_refused(
    words: list[str], says: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", "mine", str(raw), str(tmp_path / "d"), "--modality", "US", *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in line
    assert "name it with --column" not in line


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("Patient ID", "`allow: true` beside the `header` in the YAML"),
        ({"header": "Sex", "type": "int"}, "name another type: `type` beside the `header` in the YAML"),
    ],
)
def test_the_way_out_for_a_table_is_the_yaml(column: Any, says: str, raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        ingest(raw, tmp_path / "d", spec_of({**TABLE, "columns": {"x": column}}))
    assert refused.value.hint.endswith(says)


@pytest.mark.parametrize("in_yaml", [True, False])
def test_the_way_out_for_a_list_is_a_flag_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, in_yaml: bool
) -> None:
    raw = write_folder(tmp_path / "raw", {"l.csv": b"path,Full Name\na.png,x\n", **pictures("a.png")})
    (tmp_path / "s.yaml").write_text(
        "id: mine\nmodality: [US]\ndeidentified: true\n"
        "layout: {reader: list, include: [l.csv], columns: {f: Full Name}}\n"
    )
    source = [str(tmp_path / "s.yaml"), str(raw)] if in_yaml else ["mine", str(raw / "l.csv")]
    words = ["ingest", *source, str(tmp_path / "d"), "--workers", "0"]
    words += [] if in_yaml else ["--modality", "US", "--reader", "list", "--deidentified", "--column", "f=Full Name"]
    assert main(words) == 2
    [flags] = re.findall(r"told by them: (.*) with `biovfm ingest`", capsys.readouterr().err)
    assert main([*words, *shlex.split(flags)]) == 0
    assert values(tmp_path / "d", "f") == {"a.png": ("x",)}
    assert main([*words, *shlex.split(flags), "--type", "f=int"]) == 2
    assert "--column 'f=Full Name' --type f=TYPE with `biovfm ingest`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ({"tables": [{**TABLE, "columns": {"width": "Breite"}}]}, "the index has a column width"),
        ({"tables": [{**TABLE, "columns": {"Alter": "Alter"}}]}, "the name of a column"),
        ({"tables": [TABLE, {**TABLE, "path": "b.csv"}]}, "two tables bring a column age"),
        ({"columns": {"age": "Alter"}}, "those of a table stand in `tables`"),
        ({"tables": [{"path": "t.csv", "columns": {"age": "Alter"}}]}, "columns need a `key`"),
        ({"tables": [{**TABLE, "columns": {"age": {"head": "Alter"}}}]}, "head"),
    ],
)
def test_mistakes_in_the_yaml_are_named(layout: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        public_spec(layout=layout)


@pytest.mark.parametrize("source", ["chestxray-14", "isic-2024", "vindr-mammo"])
def test_entries_of_the_catalogue_bring_what_their_tables_hold(source: str) -> None:
    columns = {name for table in load_spec(source).layout.tables for name in table.columns}
    assert columns & {"age", "sex", "view"}


def test_the_schema_knows_both_ways_to_write_a_column() -> None:
    header, whole = SourceSpec.model_json_schema()["$defs"]["OwnColumn"]["anyOf"]
    assert header["type"] == "string"
    assert whole["required"] == ["header"]
    assert whole["additionalProperties"] is False
