"""One environment for every client: endpoint, profile, switches; and no secret anywhere it could be read."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from infra.s3_server import Server
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, StoreError
from shards.store import (
    MemoryStore,
    S3Options,
    StoreSettings,
    duckdb_secret,
    fsspec_options,
    open_store,
    redact,
    register_with_duckdb,
    storage_options,
)
from tests.shards.builders import small_dataset

VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_SKIP_SIGNATURE",
)
DRIVERS = ("obstore", "fsspec")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that knows nothing of AWS."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.fixture
def profile(bucket: str, s3_env: Server, bare: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The same bucket, known through a profile in the shared files instead of variables."""
    env = s3_env.env
    keys = f"aws_access_key_id={env['AWS_ACCESS_KEY_ID']}\naws_secret_access_key={env['AWS_SECRET_ACCESS_KEY']}\n"
    (tmp_path / "credentials").write_text(f"[lab]\n{keys}")
    (tmp_path / "config").write_text(f"[profile lab]\nregion=us-east-1\nendpoint_url={env['AWS_ENDPOINT_URL']}\n")
    bare.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    bare.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    bare.setenv("AWS_PROFILE", "lab")
    return bucket


def test_http_is_allowed_for_http_endpoints_alone(bare: pytest.MonkeyPatch) -> None:
    assert storage_options("s3://b/x").get("AWS_ALLOW_HTTP") is None
    bare.setenv("AWS_ENDPOINT_URL", "https://objects.example.org")
    assert storage_options("s3://b/x").get("AWS_ALLOW_HTTP") is None
    bare.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert storage_options("s3://b/x")["AWS_ALLOW_HTTP"] == "true"


def test_the_narrower_variable_wins(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_ENDPOINT_URL", "https://all.example.org")
    bare.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.org")
    bare.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    options = S3Options.from_environment()
    assert (options.endpoint, options.region) == ("https://s3.example.org", "eu-central-1")


def test_switches_reach_the_clients(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    bare.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    bare.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    bare.setenv("AWS_SKIP_SIGNATURE", "true")
    config = fsspec_options("s3://b/x")["config_kwargs"]
    assert config["request_checksum_calculation"] == config["response_checksum_validation"] == "when_required"
    assert config["s3"] == {"addressing_style": "virtual"}
    assert fsspec_options("s3://b/x")["anon"] is True
    assert S3Options.from_environment().for_obstore()["virtual_hosted_style_request"] is True
    assert storage_options("s3://b/x")["AWS_SKIP_SIGNATURE"] == "true"


def test_other_urls_need_no_options(bare: pytest.MonkeyPatch) -> None:
    assert storage_options("/data/x") == storage_options("file:///data/x") == {}
    assert not [name for name in storage_options("gs://b/x") if name.startswith("AWS")]


def test_requests_for_tables_have_the_budget_of_the_store(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("BIOVFM_STORE_BUDGET_SECONDS", "7")
    bare.setenv("BIOVFM_STORE_BACKOFF_SECONDS", "0.5")
    found = storage_options("s3://b/x")
    assert (found["retry_timeout"], found["backoff_config.init_backoff"]) == ("7000ms", "500ms")


@pytest.mark.slow
def test_a_dead_endpoint_is_tried_for_the_budget_and_then_one_line(bare: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "BIOVFM_STORE_BUDGET_SECONDS": "3",
    }.items():
        bare.setenv(name, value)
    begin = time.monotonic()
    with pytest.raises(StoreError) as caught:
        Dataset("s3://b/x", MemoryStore(), {}).table("index")
    assert 2 < time.monotonic() - begin < 15
    assert "\n" not in str(caught.value)
    assert "biovfm doctor" in caught.value.hint


@pytest.mark.parametrize("name", ["run#1", "v?1", "a%20b", "a\\b", "tab\tx"])
def test_names_that_clients_read_differently_are_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="may not hold"):
        Dataset.create(f"s3://bucket/{name}/data")
    with pytest.raises(ConfigError, match="may not hold"):
        Dataset.open(f"s3://bucket/{name}/data")
    if name in {"a%20b", "a\\b", "tab\tx"}:
        with pytest.raises(ConfigError, match="may not hold"):
            Dataset.create(str(tmp_path / name))
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run#1", "v?1", "100%", "a b", "a'b", "ü"])
def test_other_odd_names_of_folders_work(name: str, tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / name)
    assert Dataset.open(dataset.url).query("SELECT count(*) AS num FROM samples")["num"].to_pylist() == [120]
    assert [folder.name for folder in tmp_path.iterdir()] == [name]
    assert fsspec_options("/data/x.zip") == fsspec_options("zip://a.png::/data/x.zip") == {}
    assert list(fsspec_options("zip://a.png::s3://b/x.zip")) == ["s3"]


@pytest.mark.s3
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_profile_is_enough_for_the_stores(profile: str, driver: str) -> None:
    store = open_store(f"{profile}/x", StoreSettings(driver=driver))
    store.put_if_absent("a", b"one")
    assert store.read("a") == b"one"


@pytest.mark.s3
def test_a_profile_is_enough_for_the_tables_and_for_duckdb(profile: str) -> None:
    url, options = f"{profile}/table", storage_options(profile)
    write_deltalake(url, pa.table({"number": [1, 2, 3]}), storage_options=options)
    (file,) = DeltaTable(url, storage_options=options).file_uris()
    with duckdb.connect() as connection:
        register_with_duckdb(connection, url)
        assert connection.sql(f"SELECT sum(number) FROM read_parquet('{file}')").fetchall() == [(6,)]


@pytest.mark.s3
def test_a_chain_of_urls_finds_the_server(bucket: str, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", "inside")
    open_store(bucket).put_if_absent("x.zip", tmp_path / "x.zip")
    url = f"zip://a.txt::{bucket}/x.zip"
    with fsspec.open(url, **fsspec_options(url)) as stream:
        assert stream.read() == b"inside"


def test_missing_credentials_are_said_to_be_missing(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="AWS_PROFILE"):
        open_store("s3://b/x", StoreSettings(driver="obstore")).read("a")
    bare.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreError, match="AWS_PROFILE"):
        storage_options("s3://b/x")


def test_duckdb_secret_quotes_what_it_holds(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_ACCESS_KEY_ID", "key")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "it's")
    bare.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")
    text = duckdb_secret()
    assert "SECRET 'it''s'" in text
    assert "ENDPOINT '127.0.0.1:9000'" in text
    assert "USE_SSL false" in text


@pytest.mark.s3
@pytest.mark.parametrize("driver", DRIVERS)
def test_no_secret_reaches_an_error_a_log_or_a_repr(
    bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, driver: str
) -> None:
    caplog.set_level(logging.INFO)
    secret = "wJalrXUtnFEMI-not-the-one"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    settings = StoreSettings(driver=driver, budget_seconds=0.2)
    store = open_store(bucket, settings)
    told = [repr(store), repr(settings), repr(S3Options.from_environment()), str(storage_options(bucket))]
    for call in (lambda: store.read("a"), lambda: list(store.list()), lambda: store.put_if_absent("a", b"x")):
        with pytest.raises(StoreError) as caught:
            call()
        told += [str(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
    assert secret not in "".join(told) + caplog.text


def test_redact() -> None:
    assert redact("https://user:pass@host/x?X-Amz-Signature=abc") == "https://user:***@host/x?***"
    assert redact("s3://bucket/a@b:c") == "s3://bucket/a@b:c"
