"""A hospital's table becomes columns of the samples; what does not match is counted, what names a person is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.cli import main
from ingest.columns.adding import Wish, add_columns, plain_name
from ingest.columns.settling import AMBIGUOUS, CONTRADICTED, NO_ID, UNMATCHED
from ingest.privacy.pseudonyms import KeyedNames
from shards.dataset.columns import columns_version, describe_columns
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError
from shards.subset import Selection, create
from tests.shards.builders import add_source, jpeg, small_dataset

SECRET = "a secret of the test"
TABLE = "Patient;Alter;Geschlecht;Größe (cm);Raucher\n"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A hospital's images: two of each patient P1 … P4, groups and raw paths hashed with its secret."""
    made = Dataset.create(str(tmp_path / "data"))
    for number in range(1, 5):
        names = KeyedNames("clinic", SECRET)
        row = {"group_id": names.group_id(f"P{number}"), "raw_path": names.path(f"ward/P{number}/image.png")}
        images = [jpeg(10 * number), jpeg(10 * number + 1)]
        add_source(made, "clinic", "CT" if number % 2 else "MR", images, job_id=f"clinic-{number}", row=row)
    return made


def write(path: Path, *lines: str, encoding: str = "cp1252") -> Path:
    path.write_bytes((TABLE + "".join(f"{line}\n" for line in lines)).encode(encoding))
    return path


@pytest.mark.slow
def test_patients_of_a_semicolon_separated_code_page_table(dataset: Dataset, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "P1;63;w;171,5;ja", "P2;58;m;180;nein", "P3;71;w;;", "P9;80;w;160;ja")
    added = add_columns(dataset, table, Wish(by="group"), secret=SECRET)
    assert added.kinds == {"alter": "int", "geschlecht": "category", "groesse_cm": "float", "raucher": "bool"}
    assert (added.rows, added.matched, added.samples, added.without) == (4, 3, 6, 2)
    assert added.left_out == {UNMATCHED: 1}
    assert added.listed == [(4, UNMATCHED, KeyedNames("columns", SECRET).group_id("P9"))]
    assert added.encoding == "cp1252"
    facts = {one.name: one for one in describe_columns(dataset)}
    assert (facts["alter"].values, facts["alter"].missing, facts["alter"].examples) == (6, 2, "58 … 71")
    assert facts["groesse_cm"].values == 4
    lock = create(dataset, Selection(where="alter > 60 AND geschlecht = 'w'", modality=("CT", "MR")))
    assert lock.num_samples == 4
    assert lock.columns_version == columns_version(dataset) == 0


@pytest.mark.slow
def test_no_identifier_is_written_anywhere(dataset: Dataset, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "P1;63;w;171,5;ja", "Quasimodo;58;m;180;nein")
    add_columns(dataset, table, Wish(by="group"), secret=SECRET)
    held = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"Quasimodo" not in held
    rows = dataset.query("SELECT * FROM own", own=pq.read_table(next((tmp_path / "data/columns").glob("*.parquet"))))
    assert rows.column_names == ["key", "alter", "geschlecht", "groesse_cm", "raucher"]
    assert "P1" not in str(rows.to_pydict())


@pytest.mark.slow
def test_rows_that_contradict_each_other_are_left_out_and_equal_ones_are_one(dataset: Dataset, tmp_path: Path) -> None:
    lines = ["P1;63;w;171;ja", "P1;64;w;171;ja", "P2;58;m;180;nein", "P2;58;m;180;nein", ";1;m;1;ja"]
    added = add_columns(dataset, write(tmp_path / "t.csv", *lines), Wish(by="group"), secret=SECRET)
    assert added.left_out == {CONTRADICTED: 2, NO_ID: 1}
    assert (added.matched, added.samples) == (2, 2)
    assert [row for row, _, _ in added.listed] == [1, 2, 5]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["P2/image.png", "ward\\P2\\image.png", "D:/scans/ward/P2/image.png"])
def test_hidden_raw_paths_are_found_by_the_secret(dataset: Dataset, tmp_path: Path, path: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"file,age\n{path},58\n")
    assert add_columns(dataset, table, Wish(by="raw-path"), secret=SECRET).samples == 2
    assert create(dataset, Selection(where="age = 58")).counts == {"MR": 2}


def test_without_the_secret_the_hint_names_it(dataset: Dataset, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "P1;63;w;171;ja")
    with pytest.raises(ConfigError, match="set BIOVFM_SECRET"):
        add_columns(dataset, table, Wish(by="group"))
    assert columns_version(dataset) is None


def test_a_name_that_several_files_have_is_ambiguous(dataset: Dataset, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("file,age\nimage.png,58\nP3/image.png,60\n")
    added = add_columns(dataset, table, Wish(by="raw-path"), secret=SECRET)
    assert (added.left_out, added.samples) == ({AMBIGUOUS: 1}, 2)


@pytest.mark.slow
def test_plain_paths_in_archives_and_keys_of_a_parquet_table(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    path = {"raw_path": "zip://a/b.png::deep/images.zip"}
    keys = add_source(dataset, "delta", "US", [jpeg(500)], row=path)
    by_path, by_key = tmp_path / "paths.csv", tmp_path / "keys.parquet"
    by_path.write_text("file\tbirads\nimages.zip/a/b.png\t4\n")
    assert add_columns(dataset, by_path, Wish(by="raw-path")).samples == 1
    pq.write_table(pa.table({"key": keys, "score": pa.array([0.5]), "good": [True]}), by_key)
    added = add_columns(dataset, by_key, Wish(by="key"))
    assert added.kinds == {"score": "float", "good": "bool"}
    lock = create(dataset, Selection(where="birads = 4 AND score < 1 AND good"))
    assert lock.num_samples == 1


@pytest.mark.slow
def test_one_patient_number_in_two_sources_needs_the_source(dataset: Dataset, tmp_path: Path) -> None:
    other = {"group_id": KeyedNames("other", SECRET).group_id("P1")}
    add_source(dataset, "other", "US", [jpeg(900)], row=other)
    table = write(tmp_path / "t.csv", "P1;63;w;171;ja")
    with pytest.raises(ConfigError, match="name the source that is meant with --source"):
        add_columns(dataset, table, Wish(by="group"), secret=SECRET)
    assert add_columns(dataset, table, Wish(by="group", source="other"), secret=SECRET).samples == 1


@pytest.mark.slow
def test_what_names_a_person_is_refused_unless_allowed(dataset: Dataset, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("Patient;Nachname;Geb.-Datum;age\nP1;Ahlers;4.3.1958;63\nP2;Boysen;17.5.1963;58\n")
    with pytest.raises(ConfigError, match=r"Nachname: .* of names; Geb.-Datum: .* of birth") as info:
        add_columns(dataset, table, Wish(by="group"), secret=SECRET)
    assert "--column age" in info.value.hint
    assert columns_version(dataset) is None
    assert add_columns(dataset, table, Wish(by="group", columns={"age": "age"}), secret=SECRET).kinds == {"age": "int"}
    wish = Wish(by="group", columns={"born": "Geb.-Datum"}, allow=["Geb.-Datum"])
    assert add_columns(dataset, table, wish, secret=SECRET).kinds == {"born": "date"}
    assert create(dataset, Selection(where="born < DATE '1960-01-01'")).num_samples == 2


@pytest.mark.slow
def test_a_second_table_extends_a_column_and_does_not_change_it_unasked(dataset: Dataset, tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.csv", "P1;63;w;171;ja"), write(tmp_path / "b.csv", "P2;58;m;180;nein")
    add_columns(dataset, first, Wish(by="group"), secret=SECRET)
    added = add_columns(dataset, second, Wish(by="group"), secret=SECRET)
    assert added.version == 1
    lock = create(dataset, Selection(where="alter > 0"))
    assert lock.num_samples == 4
    changed = write(tmp_path / "c.csv", "P1;64;w;171;ja")
    with pytest.raises(ConfigError, match="2 samples have another value in alter"):
        add_columns(dataset, changed, Wish(by="group"), secret=SECRET)
    add_columns(dataset, changed, Wish(by="group", replace=True), secret=SECRET)
    assert create(dataset, Selection(where="alter = 64")).num_samples == 2
    assert create(dataset, Selection(where="alter = 58")).num_samples == 2
    with pytest.raises(ConfigError, match="with type int, the table has category"):
        add_columns(dataset, write(tmp_path / "d.csv", "P1;old;w;171;ja"), Wish(by="group"), secret=SECRET)


def test_a_name_of_the_index_or_of_sql_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("patient,modality,order\nP1,CT,2\n")
    with pytest.raises(ConfigError, match="--column own_modality=modality"):
        add_columns(dataset, table, Wish(by="group"), secret=SECRET)
    with pytest.raises(ConfigError, match="no word of SQL"):
        add_columns(dataset, table, Wish(by="group", columns={"order": "order"}), secret=SECRET)


def test_names_of_columns() -> None:
    assert plain_name("Größe (cm)") == "groesse_cm"
    assert plain_name("Âge") == "age"


@pytest.mark.slow
def test_the_command_counts_lists_and_removes(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOVFM_SECRET", SECRET)
    table, out = write(tmp_path / "t.csv", "P1;63;w;171;ja", "P9;58;m;180;nein"), tmp_path / "unmatched.tsv"
    line = ["columns", "add", dataset.url, str(table), "--by", "group", "--column", "age=Alter", "--json"]
    assert main([*line, "--unmatched", str(out)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["rows"], result["matched"], result["columns"]) == (2, 1, {"age": "int"})
    assert out.read_text().splitlines()[1].startswith("2\tmatches nothing\t")
    assert "P9" not in out.read_text() + captured.out + captured.err
    assert main(["columns", "list", dataset.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["columns"][0]["name"] == "age"
    assert main(["stats", dataset.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["columns"][0]["values"] == 2
    assert main(["columns", "remove", dataset.url, "age"]) == 0
    assert main(["columns", "list", dataset.url]) == 0
    assert "no columns of your own" in capsys.readouterr().out
    assert main(["columns", "add", dataset.url, str(table), "--by", "group", "--column", "Altr"]) == 2
    assert "did you mean Alter?" in capsys.readouterr().err


@pytest.mark.slow
def test_names_that_are_words_of_our_own_queries(dataset: Dataset, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "P1;63;w;171,5;ja", "P2;58;m;180;nein")
    names = ("row", "id", "place", "said", "reason", "old", "given", "samples", "own", "index_rows")
    add_columns(dataset, table, Wish(by="group", columns=dict.fromkeys(names, "Alter"), allow=names), secret=SECRET)
    add_columns(dataset, table, Wish(by="group", columns=dict.fromkeys(names, "Alter"), allow=names), secret=SECRET)
    for name in names:
        assert create(dataset, Selection(where=f"{name} > 60")).num_samples == 2
    assert [facts.values for facts in describe_columns(dataset)] == [4] * len(names)


@pytest.mark.slow
def test_a_header_with_an_equals_sign_and_one_with_no_letters(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOVFM_SECRET", SECRET)
    path = tmp_path / "t.csv"
    path.write_text("Patient;a=b;年齢\nP1;3;63\n", encoding="utf-8")
    words = ["columns", "add", dataset.url, str(path), "--by", "group"]
    assert main(words) == 2
    assert "--column NEW=年齢" in capsys.readouterr().err
    assert main([*words, "--column", "x=a=b", "--column", "x=年齢"]) == 2
    assert "a=b is called x already" in capsys.readouterr().err
    assert main([*words, "--column", "x=a=b", "--column", "age=年齢"]) == 0
    assert "added x (int), age (int)" in capsys.readouterr().out
