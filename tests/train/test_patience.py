"""How long ranks wait for each other."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shards.errors import ConfigError
from train.patience import collective_timeout


def test_half_an_hour_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIOVFM_COLLECTIVE_SECONDS", raising=False)
    assert collective_timeout() == timedelta(minutes=30)
    monkeypatch.setenv("BIOVFM_COLLECTIVE_SECONDS", "90.5")
    assert collective_timeout() == timedelta(seconds=90.5)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_other_values_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOVFM_COLLECTIVE_SECONDS", text)
    with pytest.raises(ConfigError, match="BIOVFM_COLLECTIVE_SECONDS"):
        collective_timeout()
