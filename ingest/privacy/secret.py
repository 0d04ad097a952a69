"""The user's secret: the key of group ids and hidden raw paths."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from shards.errors import ConfigError
from shards.settings import read_text

VARIABLE = "BIOVFM_SECRET"


def secret_file() -> Path:
    """Where the secret lies if the environment does not give one."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "biovfm" / "secret"


def load_secret(*, create: bool = True) -> SecretStr:
    """The secret of the environment (`BIOVFM_SECRET`), else of the user's file, made on first use.

    Whoever holds it can tell whether a known patient is in a dataset; keep it as long as sources are to be added,
    since another secret gives other group ids.

    Args:
        create: Make the file where there is none; else the secret is empty then.

    Raises:
        ConfigError: The file cannot be made.
    """
    given = os.environ.get(VARIABLE, "")
    if given:
        return SecretStr(given)
    path = secret_file()
    if not path.exists():
        if not create:
            return SecretStr("")
        try:
            _make_secret(path)
        except OSError as error:
            raise ConfigError(
                f"a secret for group ids cannot be kept in {path}: {error.strerror}",
                hint=f"set {VARIABLE} to one that you keep (`openssl rand -hex 32` makes one)",
            ) from error
    return SecretStr(path.read_text(encoding="utf-8").strip())


def _make_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".secret-{os.getpid()}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(secrets.token_hex(32) + "\n")
    with suppress(FileExistsError):  # another process was quicker
        os.link(partial, path)
    partial.unlink()


def write_backup(secret: SecretStr, path: Path) -> None:
    """Write a secret into a new file that its owner alone can read; one that holds it already stays.

    Raises:
        ConfigError: The file is there and holds something else.
    """
    if path.exists():
        if read_backup(path).get_secret_value() != secret.get_secret_value():
            raise ConfigError(f"{path} is there and holds something else", hint="name another file")
        path.chmod(0o600)
        return
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(secret.get_secret_value() + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_backup(path: Path) -> SecretStr:
    """The secret in a file that `write_backup` wrote.

    Raises:
        ConfigError: There is no such file, or no secret in it.
    """
    text = read_text(path).strip()
    if not text:
        raise ConfigError(f"{path} holds no secret", hint="name the file that `biovfm secret backup` wrote")
    return SecretStr(text)
