"""The folder for a machine without network: what lies in it, and that its script runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra.commands.device import pack as packing
from infra.commands.device.images import read_tar
from infra.commands.device.pack import NEEDED, pack
from shards.errors import ConfigError
from tests.shards.builders import small_dataset

pytestmark = pytest.mark.torch


def write_wheel(requirement: str, target: Path, python: str) -> bool:
    """A wheel with one module, in the place of one from an index."""
    name = requirement.partition("==")[0].replace("-", "_")
    info = f"probe_{name}-{1}.dist-info"
    with zipfile.ZipFile(target / f"probe_{name}-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"probe_{name}.py", f"python = {python!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: probe_{name}\nVersion: 1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return True


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_fetch", write_wheel)


def packed(folder: Path, *, data: Path | None = None, max_mib: int = 64) -> tuple[dict[str, float], list[str]]:
    said: list[str] = []
    return pack(folder, data=data, max_mib=max_mib, python="3.12", torch="2.11", say=said.append), said


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.usefixtures("offline")
def test_the_script_installs_the_wheels_and_runs_the_check(tmp_path: Path) -> None:
    sizes, _ = packed(tmp_path / "pack")
    assert sizes["total"] < 10
    assert {path.name for path in (tmp_path / "pack").iterdir()} == {"code", "images.tar", "lib", "run.sh", "wheels"}
    done = subprocess.run(
        ["sh", str(tmp_path / "pack" / "run.sh"), "--json"],
        env={**os.environ, "PYTHON": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {part["verdict"] for part in report["parts"]} <= {"ok", "skipped"}
    assert (tmp_path / "pack" / "site" / "probe_pydantic.py").is_file()


@pytest.mark.usefixtures("offline")
def test_the_images_are_those_of_the_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    small_dataset(data)
    packed(tmp_path / "pack", data=data)
    images = read_tar(tmp_path / "pack" / "images.tar")
    assert images == read_tar(packing.shard_of(data))
    assert len(list((tmp_path / "pack" / "wheels").iterdir())) == len(NEEDED) + len(packing.WHEELS)


@pytest.mark.usefixtures("offline")
def test_what_is_too_large_is_left_out_and_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 are allowed"):
        packed(tmp_path / "pack", max_mib=1)
    with pytest.raises(ConfigError, match="exists"):
        packed(tmp_path / "pack")


def test_a_wheel_that_is_not_to_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_fetch", lambda *_: False)
    with pytest.raises(ConfigError, match=r"no wheel of pydantic for Python 3\.12"):
        packed(tmp_path / "pack")


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.usefixtures("offline")
def test_what_the_machine_lacks_is_said_in_one_line(tmp_path: Path) -> None:
    packed(tmp_path / "pack")
    (tmp_path / "pack" / "code" / "torch.py").write_text("raise ModuleNotFoundError(name='torch')\n")
    done = subprocess.run(
        ["sh", str(tmp_path / "pack" / "run.sh")],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("this Python lacks torch")
    assert "Traceback" not in done.stderr
