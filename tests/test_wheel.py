"""The wheel is true: it carries its own libjpeg-turbo, and a machine without one decodes with the native decoder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shards.decode.native_decoder import NativeUnavailableError, load

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.process]

DECODES = """
import io, sys
import numpy as np
from PIL import Image
import shards
from shards.decode import Crops, open_decoder
assert shards.__file__.startswith(sys.argv[1]), shards.__file__
buffer = io.BytesIO()
Image.new("RGB", (64, 48), (200, 30, 60)).save(buffer, "JPEG")
decoder = open_decoder("native")
out = [np.zeros((1, 1, 32, 32, 3), np.uint8)]
status = decoder.decode([buffer.getvalue()], np.zeros(1, np.uint64), [Crops(size_px=32)], out)
assert status.tolist() == [0] and abs(int(out[0][0, 0, 16, 16, 0]) - 200) < 4, (status, out[0][0, 0, 16, 16])
print(decoder.name, [line.split()[-1] for line in open("/proc/self/maps") if "libjpeg" in line][0])
"""


def build_wheel(folder: Path, **environment: str) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("the build system cannot be fetched")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        load()
    except NativeUnavailableError as error:
        pytest.skip(str(error))
    return build_wheel(tmp_path_factory.mktemp("wheel"), BIOVFM_NATIVE="1")


def test_its_tag_names_a_platform_and_benchmarks_stay_behind(wheel: Path) -> None:
    assert "-py3-none-manylinux_2_" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert "shards/native/_biovfm_decode.so" in names
    assert "shards/native/LICENSE.libjpeg-turbo" in names
    assert not [name for name in names if name.startswith(("infra/bench/", "tests/"))]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="hiding a library needs root")
def test_it_decodes_where_the_system_has_no_libjpeg(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    system = {Path(line.split("=>")[1].strip()).resolve() for line in known.splitlines() if "libjpeg.so" in line}
    assert system
    nothing = tmp_path / "nothing"
    nothing.touch()
    hide = " && ".join(f"mount --bind {nothing} {path}" for path in sorted(system))
    script = f'{hide} && exec {sys.executable} -c "$CODE" {installed}'
    environment = {**os.environ, "CODE": DECODES, "PYTHONPATH": str(installed)}
    environment.pop("LD_LIBRARY_PATH", None)
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["native", str(installed / "shards" / "native" / "libjpeg.so.62")]


def test_without_a_compiler_it_is_pure(tmp_path: Path) -> None:
    assert build_wheel(tmp_path, CC="/nowhere/cc", BIOVFM_NATIVE="").name.endswith("-py3-none-any.whl")
