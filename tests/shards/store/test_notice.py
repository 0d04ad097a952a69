"""A long wait says what is waited for, why, and how long it will go on; a short one says nothing."""

from __future__ import annotations

import threading
import time

import pytest

from shards.store import StoreSettings, notice
from shards.store.driver import DriverError
from shards.store.notice import waiting
from shards.store.retry import attempt


def refuse() -> None:
    raise DriverError("transient", "connection refused")


@pytest.mark.slow
def test_a_dead_endpoint_is_told_while_it_is_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notice, "QUIET_SECONDS", 0.5)
    settings = StoreSettings(budget_seconds=3.0, backoff_seconds=0.2, backoff_max_seconds=0.3)
    with pytest.raises(DriverError):
        attempt(refuse, settings, what="s3://bucket/data")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "waiting for s3://bucket/data for" in said
    assert "(connection refused); gives up after 3 s" in said


@pytest.mark.slow
def test_many_waits_at_once_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(notice, "QUIET_SECONDS", 0.2)

    def wait() -> None:
        with waiting("a lease", limit_seconds=0):
            time.sleep(2.5)

    threads = [threading.Thread(target=wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = capsys.readouterr().err
    assert said.startswith("biovfm: waiting for a lease for")
    assert 1 <= said.count("\n") <= 2
    assert "gives up" not in said


@pytest.mark.slow
def test_a_short_wait_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("s3://bucket/data", limit_seconds=9):
        time.sleep(1.5)
    assert not capsys.readouterr().err
