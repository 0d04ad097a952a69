"""The C code compiles without a warning, with every compiler that is here, and its harnesses run clean."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shards.native.build import BuildError, build
from tests.shards.native.fuzz.__main__ import SOURCES, WARNINGS

pytestmark = pytest.mark.process


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_warnings_are_errors(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    command = [compiler, "-std=c11", "-O2", "-fsyntax-only", *WARNINGS, *SOURCES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_library_is_hardened(tmp_path: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("there is no readelf")
    try:
        library = build(tmp_path)
    except BuildError as error:
        pytest.skip(str(error))
    text = subprocess.run(["readelf", "-dlW", str(library)], capture_output=True, text=True, check=True).stdout
    assert "GNU_RELRO" in text
    assert "BIND_NOW" in text or "NOW" in text
    assert "$ORIGIN" in text
    (stack,) = [line for line in text.splitlines() if "GNU_STACK" in line]
    assert "RWE" not in stack


@pytest.mark.slow
def test_the_harnesses_run_clean_for_some_seconds(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("there is no clang")
    command = [sys.executable, "-m", "tests.shards.native.fuzz", "--seconds", "15", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
