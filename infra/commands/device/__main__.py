"""`python -m infra.commands.device`: the check where the command line's libraries are missing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.commands.device.check import check_device
from shards.errors import BiovfmError


def main() -> int:
    """Parse the options of `biovfm doctor --device` and run it."""
    parser = argparse.ArgumentParser(prog="python -m infra.commands.device", description=__doc__)
    parser.add_argument("--bench", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int)
    parser.add_argument("--only", action="append", default=[])
    given = parser.parse_args()
    try:
        return check_device(bench=given.bench, data=given.data, images=given.images, json_=given.json, only=given.only)
    except ModuleNotFoundError as error:
        needed = "PyTorch, torchvision, timm, safetensors, PyYAML and NumPy"
        sys.stderr.write(f"this Python lacks {error.name} — the check needs {needed}: PYTHON=/its/python sh run.sh\n")
    except BiovfmError as error:
        sys.stderr.write(f"{error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
