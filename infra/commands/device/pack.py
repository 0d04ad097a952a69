"""A folder that runs the device's check on a GPU machine without network: the code, what is missing there, images.

<folder>/code/     this project's packages, with the compiled decoder
<folder>/wheels/   what a machine with PyTorch, torchvision, timm and NumPy lacks
<folder>/lib/      the libjpeg that the compiled decoder was built against
<folder>/images.tar    real images, which are decoded in this order
<folder>/run.sh    `sh run.sh [--bench] [--json]`
"""

from __future__ import annotations

import ctypes.util
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final

from shards.errors import ConfigError
from shards.native.build import HERE, LIBRARY

__all__ = ["WHEELS", "pack"]

ROOT: Final = Path(__file__).parents[3]
PACKAGES: Final = ("shards", "train", "eval", "infra", "ingest")
NEEDED: Final = (
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-inspection",
    "typing-extensions",
    "google-crc32c",
    "simplejpeg",
)
"""At the versions installed here; without them nothing runs."""
WHEELS: Final = ("torchcodec", "nvidia-nvimgcodec-cu13", "nvidia-nvjpeg")
"""To compare, at their newest versions; left out from the last one on where the folder would grow too large."""
_RUN: Final = """#!/bin/sh
# Runs the device's check here: sh run.sh [--bench] [--json] [--images N] [--only TEXT]
# With another Python than python3: PYTHON=/opt/conda/bin/python sh run.sh
set -e
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
"$python" -m pip install --quiet --no-index --no-deps --upgrade --target site wheels/*.whl
export PYTHONPATH=code:site LD_LIBRARY_PATH="$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$python" -m infra.commands.device --data images.tar "$@"
"""


def pack(
    folder: Path, *, data: Path | None, max_mib: int, python: str, torch: str, say: Callable[[str], None]
) -> dict[str, float]:
    """Write the folder.

    Args:
        folder: To be made; must not exist.
        data: A shard or a dataset's folder, whose first images go along; drawn images where None.
        max_mib: Largest size of all files together.
        python: Version of Python there, such as `3.12`.
        torch: Version of PyTorch there.
        say: Takes one line for the user.

    Returns:
        MiB by part: code, wheels, lib, images, total.

    Raises:
        ConfigError: The folder exists, a needed wheel is not to be had, or it is larger than allowed.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists", hint="name a folder that does not")
    folder.mkdir(parents=True)
    _copy_code(folder / "code")
    _copy_libjpeg(folder / "lib", say)
    _write_images(folder, data)
    (folder / "run.sh").write_text(_RUN)
    (folder / "wheels").mkdir()
    for name in NEEDED:
        if not _fetch(f"{name}=={metadata.version(name)}", folder / "wheels", python):
            raise ConfigError(f"there is no wheel of {name} for Python {python}", hint="try another --python")
    for name in WHEELS:
        _add_where_it_fits(name, folder, python, max_mib, say)
    say(f"for Python {python} with torch {torch}, torchvision, timm, safetensors, PyYAML and NumPy")
    sizes = {part.name: _mib(part) for part in sorted(folder.iterdir()) if part.is_dir() or part.suffix == ".tar"}
    sizes["total"] = _mib(folder)
    if sizes["total"] > max_mib:
        raise ConfigError(f"{folder} has {sizes['total']} MiB, {max_mib} are allowed", hint="raise --max-mib")
    return sizes


def _copy_code(target: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "node_modules")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=ignore)


def _copy_libjpeg(target: Path, say: Callable[[str], None]) -> None:
    """The library that the compiled decoder loads, under the name by which it asks for it."""
    target.mkdir()
    decoder = HERE / LIBRARY
    if not decoder.exists():
        say("the compiled decoder was not built here: the host decodes with simplejpeg there")
        return
    command = ["ldd", str(decoder)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - our own file
    for line in listed.splitlines():
        name, _, rest = line.strip().partition(" => ")
        if name.startswith("libjpeg") and rest:
            shutil.copy(Path(rest.split()[0]).resolve(), target / name)
            return
    say(f"libjpeg was not found beside the compiled decoder ({ctypes.util.find_library('jpeg') or 'none here'})")


def _write_images(folder: Path, data: Path | None, *, most_bytes: int = 6 << 20) -> None:
    from infra.commands.device.images import drawn_jpegs, read_tar

    images = drawn_jpegs(64, side=384) if data is None else read_tar(shard_of(data))
    size = 0
    with tarfile.open(folder / "images.tar", "w") as tar:
        for number, image in enumerate(images):
            if size + len(image) > most_bytes:
                break
            suffix = "png" if image[:4] == b"\x89PNG" else "jpg"
            member = tarfile.TarInfo(f"{number:06d}.{suffix}")
            member.size = len(image)
            size += len(image)
            tar.addfile(member, io.BytesIO(image))


def shard_of(data: Path) -> Path:
    """A shard itself, or the first one of a dataset's folder.

    Raises:
        ConfigError: There is none.
    """
    if data.is_file():
        return data
    shards = sorted(data.glob("shards/*/*/*.tar"))
    if not shards:
        raise ConfigError(f"{data} has no shard", hint="give a .tar, or the folder of a dataset")
    return shards[0]


def _fetch(requirement: str, target: Path, python: str) -> bool:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)] + ["manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += [part for platform in platforms for part in ("--platform", platform)]
    command += ["--python-version", python, "--dest", str(target), requirement]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - pip


def _add_where_it_fits(name: str, folder: Path, python: str, max_mib: int, say: Callable[[str], None]) -> None:
    there = set((folder / "wheels").iterdir())
    if not _fetch(name, folder / "wheels", python):
        say(f"{name}: no wheel for Python {python}, left out")
    elif _mib(folder) > max_mib:
        for wheel in set((folder / "wheels").iterdir()) - there:
            wheel.unlink()
        say(f"{name}: left out, the folder would have more than {max_mib} MiB")


def _mib(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 2**20, 2)
