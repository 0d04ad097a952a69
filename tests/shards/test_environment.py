"""Numbers in environment variables: read as they are, or refused by name."""

from __future__ import annotations

import pytest

from shards.environment import whole_number
from shards.errors import ConfigError


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
