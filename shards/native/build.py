"""Compile the native decoder: `python -m shards.native.build`.

The package's build hook calls this too. Only the standard library is used, since it runs where nothing is installed.
The result is a plain shared library that `ctypes` loads, so it needs no Python headers and fits every Python version.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

__all__ = ["LIBRARY", "BuildError", "build", "source_digest"]

HERE = Path(__file__).parent
LIBRARY = "_biovfm_decode.so"
"""File name of the shared library, beside the sources."""
_FLAGS = ["-std=c11", "-O3", "-g0", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra"]
_FLAGS += ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
_HARDENING = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
_LINKING = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"] if sys.platform == "linux" else []
_LINKING += ["-Wl,-rpath,$ORIGIN"] if sys.platform == "linux" else []
"""A wheel carries its libjpeg-turbo beside the library; elsewhere the loader goes on to the system's."""


class BuildError(Exception):
    """There is no compiler, no `jpeglib.h` of libjpeg-turbo, or the compiler refuses."""


def source_digest() -> str:
    """First 16 hex digits of the SHA-256 over the C sources; the built library carries the same."""
    digest = hashlib.sha256()
    for path in sorted([*HERE.glob("*.c"), *HERE.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(folder: Path = HERE) -> Path:
    """Compile the sources into `folder`.

    The compiler is `$CC`, else the one that built Python, else `cc`; `$CFLAGS` and `$LDFLAGS` are added.

    Returns:
        The shared library; it appears whole or not at all.

    Raises:
        BuildError: With what the compiler said.
    """
    target = folder / LIBRARY
    temporary = folder / f".{LIBRARY}.{os.getpid()}"
    include, link = _libjpeg()
    sources = [str(path) for path in sorted(HERE.glob("*.c"))]
    extra = shlex.split(os.environ.get("CFLAGS", ""))
    command = [
        *_compiler(),
        *_FLAGS,
        *_HARDENING,
        f"-DBV_SOURCE={source_digest()}",
        *include,
        *extra,
        "-o",
        str(temporary),
        *sources,
    ]
    command += [*_LINKING, *shlex.split(os.environ.get("LDFLAGS", "")), *link, "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
        if done.returncode:
            raise BuildError(_reason(done.stderr))
        temporary.replace(target)
    except OSError as error:
        raise BuildError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _compiler() -> list[str]:
    wanted = shlex.split(os.environ.get("CC", ""))
    python_s = shlex.split(sysconfig.get_config_var("CC") or "")[:1]
    for words in [wanted] if wanted else [python_s, ["cc"], ["gcc"], ["clang"]]:
        if words and shutil.which(words[0]):
            return words
    raise BuildError("there is no C compiler")


def _libjpeg() -> tuple[list[str], list[str]]:
    """Compiler and linker words for libjpeg, from pkg-config where it knows."""
    tool = shutil.which("pkg-config")
    if tool:
        answers = [
            subprocess.run([tool, word, "libjpeg"], capture_output=True, text=True, check=False)  # noqa: S603
            for word in ("--cflags", "--libs")
        ]
        if all(answer.returncode == 0 for answer in answers):
            return shlex.split(answers[0].stdout), shlex.split(answers[1].stdout) or ["-ljpeg"]
    return [], ["-ljpeg"]


def _reason(stderr: str) -> str:
    if "jpeglib.h" in stderr or "jerror.h" in stderr:
        return "jpeglib.h is missing (Debian: libjpeg62-turbo-dev, Fedora: libjpeg-turbo-devel)"
    lines = [line for line in stderr.splitlines() if "error" in line] or stderr.splitlines()
    return lines[0].strip() if lines else "the compiler failed"


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{build()}\n")
    except BuildError as problem:
        sys.exit(f"the native decoder was not built: {problem}")
