"""Build hook: compiles the native decoder into the wheel, and goes on without it where that cannot be done.

A wheel with the decoder carries the libjpeg-turbo that it was linked with, and its platform tag names the oldest glibc
that both run on. A wheel without it is pure Python. An editable install compiles in place and uses the system's
libjpeg. `BIOVFM_NATIVE=0` leaves the decoder out; `BIOVFM_NATIVE=1` makes a failure an error.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NATIVE = "shards/native"
_LICENCES = ("/usr/share/doc/{package}/copyright", "/usr/share/licenses/{package}/LICENSE.md")


class NativeDecoderHook(BuildHookInterface[Any]):
    """Adds the shared library of `shards/native` and marks the wheel as made for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile: in place for an editable install, into a temporary folder for a wheel."""
        wanted = os.environ.get("BIOVFM_NATIVE", "")
        if wanted == "0":
            return
        builder = _load_builder(Path(self.root))
        try:
            if version == "editable":
                builder.build()
            else:
                self._add_to_wheel(builder, build_data)
        except builder.BuildError as error:
            if wanted == "1":
                raise
            self.app.display_warning(f"biovfm is installed without its native decoder: {error}")

    def _add_to_wheel(self, builder: ModuleType, build_data: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="biovfm-wheel-")
        library = builder.build(Path(self._folder.name))
        files = [library]
        jpeg = linked_jpeg(library)
        if jpeg is not None:
            files.append(jpeg)
            build_data["force_include"].update(
                {str(text): f"{_NATIVE}/LICENSE.libjpeg-turbo" for text in _jpeg_licence()[:1]}
            )
        build_data["force_include"].update({str(path): f"{_NATIVE}/{_name(path)}" for path in files})
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(files)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        del version, build_data, artifact_path
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def linked_jpeg(library: Path) -> Path | None:
    """The file of libjpeg that the loader takes for a library; None where the loader does not say (not Linux)."""
    if sys.platform != "linux":
        return None
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", code, str(library)], capture_output=True, text=True, check=True)  # noqa: S603
    found = re.findall(r"(/\S*/libjpeg\.so\S*)$", done.stdout, re.MULTILINE)
    return Path(found[0]) if found else None


def _name(path: Path) -> str:
    """The name under which the loader looks for a library: its SONAME."""
    done = subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True, check=True)  # noqa: S603, S607
    found = re.search(r"\(SONAME\).*\[(.+)\]", done.stdout)
    return found[1] if found else path.name


def platform_tag(files: list[Path]) -> str:
    """The wheel's platform: `manylinux_2_X_ARCH` for the newest glibc symbol that the files ask for."""
    if sys.platform == "linux":
        texts = [
            subprocess.run(["readelf", "-V", "--wide", str(path)], capture_output=True, text=True, check=True).stdout  # noqa: S603, S607
            for path in files
        ]
        minors = [int(minor) for text in texts for minor in re.findall(r"Name: GLIBC_2\.(\d+)", text)]
        if minors:
            return f"manylinux_2_{max(*minors, 5)}_{platform.machine()}"
    from packaging.tags import sys_tags

    return next(iter(sys_tags())).platform


def _jpeg_licence() -> list[Path]:
    packages = ("libjpeg62-turbo", "libjpeg-turbo8", "libjpeg-turbo")
    places = [Path(place.format(package=package)) for package in packages for place in _LICENCES]
    return [place for place in places if place.is_file()]


def _load_builder(root: Path) -> ModuleType:
    """`shards/native/build.py` by its path: importing the package would need numpy."""
    path = root.resolve() / "shards" / "native" / "build.py"
    spec = importlib.util.spec_from_file_location("biovfm_native_build", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
