"""Build hook: compiles the native decoder into the wheel, and goes on without it where that cannot be done.

`BIOVFM_NATIVE=0` leaves it out; `BIOVFM_NATIVE=1` makes a failure an error.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeDecoderHook(BuildHookInterface[Any]):
    """Adds the shared library of `shards/native` and marks the wheel as made for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in place, where an editable install finds the library too."""
        del version
        wanted = os.environ.get("BIOVFM_NATIVE", "")
        if wanted == "0":
            return
        builder = _load_builder(Path(self.root))
        try:
            library = builder.build()
        except builder.BuildError as error:
            if wanted == "1":
                raise
            self.app.display_warning(f"biovfm is installed without its native decoder: {error}")
            return
        from packaging.tags import sys_tags

        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(iter(sys_tags())).platform}"
        build_data["artifacts"].append(f"/{library.relative_to(Path(self.root).resolve()).as_posix()}")


def _load_builder(root: Path) -> ModuleType:
    """`shards/native/build.py` by its path: importing the package would need numpy."""
    path = root.resolve() / "shards" / "native" / "build.py"
    spec = importlib.util.spec_from_file_location("biovfm_native_build", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
