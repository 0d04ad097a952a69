"""Tables of labels as hospitals write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.labelled.table import read_labels
from shards.errors import ConfigError


def table(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "findings.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_two_values_are_a_binary_task(tmp_path: Path) -> None:
    found = read_labels(table(tmp_path, "key,finding\na,no\nb,yes\nc,\n"))
    assert (found.kind, found.class_names) == ("binary-class", ("no", "yes"))
    assert found.labels.tolist() == [[0], [1]]
    assert (list(found.ids), found.by, found.num_unlabelled) == (["a", "b"], "key", 1)


def test_more_values_are_classes_in_the_order_of_numbers(tmp_path: Path) -> None:
    path = table(tmp_path, "raw_path;grade\na.png;10\nb.png;2\nc.png;3\n")
    found = read_labels(path)
    assert (found.kind, found.class_names) == ("multi-class", ("2", "3", "10"))
    assert found.labels[:, 0].tolist() == [2, 0, 1]
    assert read_labels(path, ordinal=True).kind == "ordinal-regression"


def test_several_columns_are_labels(tmp_path: Path) -> None:
    found = read_labels(table(tmp_path, "group_id\tmass\tedema\tsplit\ng1\t1\t0\ttrain\ng2\t0\t1\tTest\n"))
    assert (found.kind, found.class_names) == ("multi-label, binary-class", ("mass", "edema"))
    assert found.labels.tolist() == [[1, 0], [0, 1]]
    assert list(found.splits) == ["train", "test"]


def test_spreadsheets_of_other_code_pages(tmp_path: Path) -> None:
    found = read_labels(table(tmp_path, "key;Größe\r\na;groß\r\nb;klein\r\n", encoding="cp1252"))
    assert found.class_names == ("groß", "klein")
    assert read_labels(table(tmp_path, "\ufeffkey,x\na,0\nb,1\n")).by == "key"


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("", {}, "has no rows"),
        ("key,x\n", {}, "has no rows"),
        ("name,x\na,1\n", {}, "has none of the columns key, raw_path, group_id"),
        ("key\na\n", {}, "has no label column"),
        ("key,x\na,1\nb,1\n", {}, "x is '1' in every row"),
        ("key,x\na,\nb,\n", {}, "no row has a value in x"),
        ("key,x\na,1\na,0\n", {}, "1 rows repeat the key"),
        ("key,x\n,1\na,0\n", {}, "1 labelled rows have no key"),
        ("key,x,split\na,1,train\nb,0,held out\n", {}, "split is 'held out'"),
        ("key,x,y\na,1,0\nb,0,7\n", {}, "y holds '7'"),
        ("key,x\na,1\nb,0\n", {"columns": ["z"]}, "has no column z"),
        ("key,x,y\na,1,0\nb,0,1\n", {"ordinal": True}, "one label column"),
        ("key,x\n" + "".join(f"{n},{n}\n" for n in range(200)), {}, "200 different values"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, more: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_labels(table(tmp_path, text), **more)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_labels(tmp_path / "nothing.csv")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "labels.csv"
    path.write_bytes(data)
    try:
        found = read_labels(path)
    except ConfigError:
        return
    assert len(found.ids) == len(found.labels)
