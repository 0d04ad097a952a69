"""`doctor` says what works and, in words, what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli import main
from infra.s3_server import Server
from shards.store import StoreSettings
from shards.store.doctor import Finding, probe
from tests.faults import Fault, FaultProxy
from tests.shards.builders import small_dataset

STEPS = ["list", "conditional put", "range reads", "multipart", "rename", "index commit", "clock", "throughput"]
FAST = StoreSettings(budget_seconds=0.5, connect_seconds=1.0, read_seconds=1.0)


@pytest.mark.process
def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for word in ("deltalake", "decoder", "pillow", "processors", "memory", "GiB free"):
        assert word in told


def test_a_folder_can_do_everything_and_stays_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in told["checks"]] == [*STEPS, "delete"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    findings = {finding.name: finding for finding in probe(str(tmp_path / "file"))}
    assert not findings["conditional put"].ok


@pytest.mark.s3
@pytest.mark.parametrize("driver", ["obstore", "fsspec"])
def test_s3_can_do_everything_and_stays_as_it_was(bucket: str, s3_env: Server, driver: str) -> None:
    findings = list(probe(f"{bucket}/data", StoreSettings(driver=driver)))
    assert [finding for finding in findings if not finding.ok] == []
    assert [finding.name for finding in findings] == ["credentials", *STEPS, "delete"]
    assert s3_env.env["AWS_SECRET_ACCESS_KEY"] not in repr(findings)


@pytest.mark.s3
def test_wrong_credentials_are_said_to_be_wrong(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    findings = by_name(bucket)
    assert "SignatureDoesNotMatch" in findings["list"].detail
    assert "credentials are refused" in findings["list"].missing
    assert list(findings) == ["credentials", "list"]
    assert "not-the-secret" not in repr(findings)


@pytest.mark.s3
@pytest.mark.parametrize("driver", ["obstore", "fsspec"])
def test_a_missing_bucket_is_named_and_not_made(s3_env: Server, driver: str) -> None:
    for _ in range(2):
        findings = {item.name: item for item in probe("s3://no-such-bucket/data", StoreSettings(driver=driver))}
        assert list(findings) == ["credentials", "list"]
        assert "the bucket is not there" in findings["list"].missing


@pytest.mark.s3
def test_a_server_that_is_away_is_named_once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    findings = by_name(bucket)
    assert list(findings) == ["credentials", "list"]
    assert "does not answer" in findings["list"].missing
    assert "biovfm doctor" not in findings["list"].detail


@pytest.mark.s3
def test_a_secret_is_shown_nowhere(
    bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BIOVFM_DEBUG", "1")
    small_dataset(f"{bucket}/data")
    right = s3_env.env["AWS_SECRET_ACCESS_KEY"]
    for secret in (right, "planted-secret"):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        for command in (["doctor"], ["verify"], ["verify", "--deep"], ["stats"], ["stream", "--bench"]):
            main([command[0], f"{bucket}/data", *command[1:]])
            main([command[0], f"{bucket}/data", *command[1:], "--json"])
        told = capfd.readouterr()
        assert secret not in told.out + told.err


@pytest.mark.s3
def test_no_credentials_are_said_to_be_missing(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    findings = by_name(bucket)
    assert list(findings) == ["credentials"]
    assert "AWS_PROFILE" in findings["credentials"].detail


@pytest.mark.s3
def test_a_read_only_place_is_named_and_its_ranges_are_checked(
    bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(s3_env.endpoint) as proxy:
        proxy.add(Fault.answer(403, "AccessDenied"), method="PUT", times=99)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        findings = by_name(bucket)
        assert "can be read, not written" in findings["conditional put"].missing
        assert "nothing to read" in findings["range reads"].detail


@pytest.mark.s3
def test_a_store_that_ignores_conditions_is_found_out(
    bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(s3_env.endpoint) as proxy:
        proxy.add(Fault.delay(0.0), method="PUT", path="/once")
        proxy.add(Fault.answer(200, ""), method="PUT", path="/once")
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        findings = by_name(bucket)
    assert "ignores If-None-Match" in findings["conditional put"].missing
    assert findings["range reads"].ok


@pytest.mark.s3
def test_parts_that_are_refused_are_named(bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(s3_env.endpoint) as proxy:
        proxy.add(Fault.answer(501, "NotImplemented"), method="POST", path="uploads", times=99)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        findings = by_name(bucket)
    assert "cannot be written" in findings["multipart"].missing


def by_name(url: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in probe(url, FAST)}
