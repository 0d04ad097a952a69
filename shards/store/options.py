"""One set of S3 options from the ordinary AWS environment, for every client that reads a dataset.

Read are `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_PROFILE` and the shared
configuration files (with their `endpoint_url` and `region`), through botocore, which also finds and refreshes the
credentials. Switches for stores that are not AWS:

    AWS_SKIP_SIGNATURE=true                           public buckets, no credentials
    AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true             bucket in the host name, where path style is refused
    AWS_REQUEST_CHECKSUM_CALCULATION=when_required    stores that refuse the newer checksum headers
    AWS_RESPONSE_CHECKSUM_VALIDATION=when_required

Options hold no credential: clients fetch those when they connect.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shards.errors import ConfigError, StoreError
from shards.store.settings import StoreSettings

S3_SCHEMES = frozenset({"s3", "s3a"})
AZURE_SCHEMES = frozenset({"az", "azure", "adl", "abfs", "abfss"})
_CREDENTIAL_MINUTES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """Where and how S3 is spoken. Nothing secret.

    Attributes:
        endpoint: URL of the service; empty for AWS itself.
        region: Region name.
        anonymous: Requests are not signed.
        virtual_host: The bucket is part of the host name.
        request_checksum: botocore's `request_checksum_calculation`; empty for its default.
        response_checksum: botocore's `response_checksum_validation`; empty for its default.
    """

    endpoint: str = ""
    region: str = "us-east-1"
    anonymous: bool = False
    virtual_host: bool = False
    request_checksum: str = ""
    response_checksum: str = ""

    @property
    def allow_http(self) -> bool:
        """Whether the endpoint itself is plain http; https is asked for everywhere else."""
        return self.endpoint.startswith("http://")

    @classmethod
    def from_environment(cls) -> S3Options:
        """What the AWS environment variables and the profile say."""
        scoped = _profile()
        variables = os.environ
        return cls(
            endpoint=_first(
                variables.get("AWS_ENDPOINT_URL_S3"),
                variables.get("AWS_ENDPOINT_URL"),
                variables.get("AWS_ENDPOINT"),
                scoped.get("endpoint_url"),
            ),
            region=_first(
                variables.get("AWS_REGION"), variables.get("AWS_DEFAULT_REGION"), scoped.get("region"), "us-east-1"
            ),
            anonymous=_switch("AWS_SKIP_SIGNATURE"),
            virtual_host=_switch("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
            request_checksum=_first(
                variables.get("AWS_REQUEST_CHECKSUM_CALCULATION"), scoped.get("request_checksum_calculation")
            ),
            response_checksum=_first(
                variables.get("AWS_RESPONSE_CHECKSUM_VALIDATION"), scoped.get("response_checksum_validation")
            ),
        )

    def for_obstore(self) -> dict[str, Any]:
        """`config` of obstore's `S3Store`."""
        config: dict[str, Any] = {
            "region": self.region,
            "virtual_hosted_style_request": self.virtual_host,
            "copy_if_not_exists": "multipart",
        }
        if self.endpoint:
            config["endpoint"] = self.endpoint
        if self.anonymous:
            config["skip_signature"] = True
        return config

    def for_s3fs(self) -> dict[str, Any]:
        """Keyword arguments of `s3fs.S3FileSystem`; botocore finds the credentials by itself."""
        client: dict[str, Any] = {"region_name": self.region}
        if self.endpoint:
            client["endpoint_url"] = self.endpoint
        config: dict[str, Any] = {"s3": {"addressing_style": "virtual" if self.virtual_host else "path"}}
        if not self.endpoint and not self.virtual_host:
            config["s3"] = {"addressing_style": "auto"}
        if self.request_checksum:
            config["request_checksum_calculation"] = self.request_checksum
        if self.response_checksum:
            config["response_checksum_validation"] = self.response_checksum
        return {
            "anon": self.anonymous,
            "client_kwargs": client,
            "config_kwargs": config,
            "use_listings_cache": False,
        }

    def for_deltalake(self) -> dict[str, str]:
        """`storage_options` of deltalake; its own provider chain finds the credentials."""
        options = {
            "AWS_REGION": self.region,
            "AWS_CONDITIONAL_PUT": "etag",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(self.virtual_host).lower(),
        }
        if self.endpoint:
            options["AWS_ENDPOINT_URL"] = self.endpoint
            # With an endpoint deltalake reads keys from the environment alone, unless it is told to look further.
            options["AWS_FORCE_CREDENTIAL_LOAD"] = "true"
        if self.allow_http:
            options["AWS_ALLOW_HTTP"] = "true"
        if self.anonymous:
            options["AWS_SKIP_SIGNATURE"] = "true"
        return options


def storage_options(url: str) -> dict[str, str]:
    """Options for `deltalake` to open tables below `url`; empty for a local folder. Nothing secret.

    Its requests get the time limits and the retry budget of our own.
    """
    scheme = _scheme(url)
    if scheme in {"", "file"}:
        return {}
    settings = StoreSettings.from_environment()
    options = {
        "max_retries": "100000",  # the budget of time is what ends them
        "retry_timeout": f"{1000 * settings.budget_seconds:.0f}ms",
        "backoff_config.init_backoff": f"{1000 * settings.backoff_seconds:.0f}ms",
        "backoff_config.max_backoff": f"{1000 * settings.backoff_max_seconds:.0f}ms",
        "backoff_config.base": "2",
        "connect_timeout": f"{settings.connect_seconds:.0f}s",
        "timeout": f"{settings.request_seconds:.0f}s",
    }
    if scheme in S3_SCHEMES:
        return options | S3Options.from_environment().for_deltalake()
    return options | ({"allow_http": "true"} if azure_is_plain_http() else {})


def azure_is_plain_http() -> bool:
    """Whether Azure's endpoint is plain http, as that of an emulator is; https is asked for otherwise."""
    variables = ("AZURE_STORAGE_ENDPOINT", "AZURITE_BLOB_STORAGE_URL")
    return any(os.environ.get(name, "").startswith("http://") for name in variables)


def require_emulator_switch(url: str) -> None:
    """Refuse tables on an emulator of Azure that the clients take for Azure itself.

    Azure lists from a name onwards and emulators do not; the clients then lose the newest version of a table, which is
    found out with the third commit.

    Raises:
        ConfigError: The endpoint is plain http and the emulator's switch is off.
    """
    if _scheme(url) in AZURE_SCHEMES and azure_is_plain_http() and not _switch("AZURE_STORAGE_USE_EMULATOR"):
        raise ConfigError(
            f"{redact(url)}: AZURE_STORAGE_ENDPOINT is that of an emulator, which cannot hold a dataset in this way",
            hint="set AZURE_STORAGE_USE_EMULATOR=true and AZURITE_BLOB_STORAGE_URL (without the account) in its place",
        )


def fsspec_options(url: str) -> dict[str, Any]:
    """Keyword arguments for `fsspec.open(url, ...)` and `fsspec.url_to_fs(url, ...)`. Nothing secret.

    In a chain (`zip://a.png::s3://bucket/x.zip`) they go to the link that speaks S3.
    """
    links = url.split("::")
    for link in links:
        if _scheme(link) in S3_SCHEMES:
            options = S3Options.from_environment().for_s3fs()
            return options if len(links) == 1 else {_scheme(link): options}
    return {}


def register_with_duckdb(connection: Any, url: str) -> None:
    """Let a DuckDB connection read what lies below `url`, in its own process and without its httpfs extension.

    The file system reads for DuckDB, so no credential ever stands in SQL. Nothing is done for a local folder.

    Args:
        connection: `duckdb.DuckDBPyConnection`; must allow external access.
        url: A dataset's URL.
    """
    if "://" in url and _scheme(url) != "file":
        from fsspec.core import url_to_fs

        connection.register_filesystem(url_to_fs(url, **fsspec_options(url))[0])


def duckdb_secret(name: str = "biovfm") -> str:
    """`CREATE SECRET` for DuckDB's own httpfs, for queries outside this process; run it, never print it.

    Returns:
        SQL that holds today's credentials. It is secret itself.

    Raises:
        StoreError: No credentials are found.
    """
    options = S3Options.from_environment()
    host = re.sub(r"^https?://", "", options.endpoint).rstrip("/")
    parts = ["TYPE s3", "PROVIDER config", f"REGION {_quoted(options.region)}"]
    parts += [f"ENDPOINT {_quoted(host)}"] if host else []
    parts.append(f"URL_STYLE '{'vhost' if options.virtual_host or not host else 'path'}'")
    parts.append(f"USE_SSL {str(not options.allow_http).lower()}")
    if not options.anonymous:
        credential = s3_credentials()()
        parts.append(f"KEY_ID {_quoted(credential['access_key_id'])}")
        parts.append(f"SECRET {_quoted(credential['secret_access_key'])}")
        if credential.get("token"):
            parts.append(f"SESSION_TOKEN {_quoted(credential['token'])}")
    return f"CREATE OR REPLACE SECRET {name} ({', '.join(parts)})"


def s3_credentials() -> Callable[[], dict[str, Any]]:
    """A provider that asks botocore's chain (environment, profile, SSO, container, instance) each time it is called.

    Static keys are read afresh from the environment and the files; temporary ones are refreshed by botocore.

    Raises:
        StoreError: No credentials are found; at the call of the provider too.
    """
    found = _credentials()

    def provide() -> dict[str, Any]:
        static = found.method in {"env", "shared-credentials-file", "config-file"}
        frozen = (_credentials() if static else found).get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=_CREDENTIAL_MINUTES),
        }

    return provide


def credential_source() -> str:
    """Where the S3 credentials come from, in words; nothing of the credentials.

    Raises:
        StoreError: No credentials are found.
    """
    if S3Options.from_environment().anonymous:
        return "none: requests are not signed"
    method = _credentials().method
    profile = os.environ.get("AWS_PROFILE", "")
    return _FOUND_IN.get(method, f"found by {method}") + (f", profile {profile}" if profile else "")


_FOUND_IN = {
    "env": "found in the environment (AWS_ACCESS_KEY_ID)",
    "shared-credentials-file": "found in the credentials file",
    "config-file": "found in the configuration file",
    "assume-role": "an assumed role",
    "iam-role": "the machine's role",
    "container-role": "the container's role",
}


def service(url: str) -> str:
    """Where the requests for an S3 URL go, in words; empty for other URLs."""
    if url.partition("://")[0] not in S3_SCHEMES:
        return ""
    options = S3Options.from_environment()
    return redact(options.endpoint) if options.endpoint else f"AWS, region {options.region}"


def require_plain(url: str) -> None:
    """Refuse a dataset's URL that the clients which read and write it would understand in different ways.

    A query, a fragment or an escaped character is part of the name to one of them and not to the other, so that
    tables would lie elsewhere than the shards, or two datasets would share one log.

    Raises:
        ConfigError: The URL holds such a character.
    """
    scheme = _scheme(url)
    odd = r"[\x00-\x1f\\]|%[0-9A-Fa-f]{2}" if scheme in {"", "file"} else r"[\x00-\x1f\\#?%]"
    if scheme not in {"http", "https"} and (found := re.search(odd, url)):
        raise ConfigError(
            f"the URL of a dataset may not hold {found[0]!r}: {redact(url)}", hint="choose another name for its folder"
        )


def redact(url: str) -> str:
    """A URL, or a text with URLs in it, without passwords and without queries, where signatures live."""
    url = re.sub(r"(://[^\s/@:]+):[^\s/@]*@", r"\1:***@", url)
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1?***", url)


def _session() -> Any:
    import botocore.session

    return botocore.session.Session()


def _profile() -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError

    try:
        return dict(_session().get_scoped_config())
    except BotoCoreError as error:
        raise StoreError(f"the AWS configuration cannot be read: {error}", hint="check AWS_PROFILE") from None


def _credentials() -> Any:
    from botocore.exceptions import BotoCoreError

    try:
        found = _session().get_credentials()
    except BotoCoreError as error:
        raise StoreError(f"S3 credentials cannot be fetched: {error}", hint="check AWS_PROFILE") from None
    if found is None:
        raise StoreError(
            "no S3 credentials are found",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or AWS_SKIP_SIGNATURE=true for a public bucket",
        )
    return found


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def _first(*values: str | None) -> str:
    return next((value for value in values if value), "")


def _switch(name: str) -> bool:
    return os.environ.get(name, "").lower() in {"1", "true", "yes"}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
