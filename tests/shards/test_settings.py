"""YAML of people: what is no file of theirs, and what a few lines stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import ConfigError
from shards.settings import load_yaml, whole_number, yaml_value


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    endless = tmp_path / "endless.yaml"
    endless.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"endless.yaml is larger than 4 MiB — check the path"):
        load_yaml(endless)


def test_aliases_that_stand_for_millions_of_values_are_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]" for before, one in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    with pytest.raises(ConfigError, match=r"a.yaml stands for millions of values"):
        yaml_value("\n".join(lines), where="a.yaml")
    with pytest.raises(ConfigError, match="stands for millions"):
        yaml_value("a: &a [*a]", where="a.yaml")


def test_aliases_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: &a {b: 1}\r\nc: {<<: *a, d: [*a, *a]}\r\n")
    assert load_yaml(path) == {"a": {"b": 1}, "c": {"b": 1, "d": [{"b": 1}, {"b": 1}]}}
    assert yaml_value("", where="x") is None


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x:\n  a: 1\n  b: [1, 2]\n  a: 3", "- b\n- {c: 1, a: 1, a: 1}"])
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    line = text.count("\n") + 1
    with pytest.raises(ConfigError, match=rf"x.yaml has the key 'a' twice, again in line {line} — remove one"):
        yaml_value(text, where="x.yaml")


def test_keys_of_several_mappings_and_merged_ones_may_be_alike() -> None:
    text = "base: &b {a: 1, c: 2}\nother: {<<: *b, a: 3}\nlist: [{a: 1}, {a: 2}]"
    assert yaml_value(text, where="x")["other"] == {"a": 3, "c": 2}  # type: ignore[index]


def test_a_number_is_read_and_a_default_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert whole_number("LOCAL_RANK", 0) == 0
    assert whole_number("LOCAL_RANK", None) is None
    monkeypatch.setenv("LOCAL_RANK", "12")
    assert whole_number("LOCAL_RANK", 0) == 12


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "²", " ", "1e3"])
def test_anything_else_is_refused_by_the_name_of_the_variable(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", text)
    with pytest.raises(ConfigError, match=r"variable LOCAL_RANK is .*no whole number from 0 on — .*unset LOCAL_RANK"):
        whole_number("LOCAL_RANK", 0)


def test_a_size_is_one_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "0")
    with pytest.raises(ConfigError, match="WORLD_SIZE is '0', which is no whole number from 1 on"):
        whole_number("WORLD_SIZE", 1, least=1)
