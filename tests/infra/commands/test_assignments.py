"""`--set KEY=VALUE`: values are YAML, and what is none is one line that names the option."""

from __future__ import annotations

import pytest

from infra.commands._assignments import read_assignments
from shards.errors import ConfigError


def read(*texts: str) -> dict[str, object]:
    return read_assignments("--set", texts, example="run.steps=10")


def test_values_are_yaml_and_the_last_counts() -> None:
    assert read("a=1", "b=[x, 2]", "c=", "d=k=v", "a=off") == {"a": False, "b": ["x", 2], "c": None, "d": "k=v"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "expected key=value"),
        ("=1", "expected key=value"),
        ("a=[1", "is not valid YAML"),
        ("a=2024-13-01", "a wrong value"),
        ("a=!!int x", "a wrong value"),
        ("a=!!python/object:os.system 1", "is not valid YAML"),
        ("a=" + "[" * 2000, "is not valid YAML"),
    ],
)
def test_anything_else_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(text)
    assert str(caught.value).startswith("--set ")
    assert "\n" not in str(caught.value)
