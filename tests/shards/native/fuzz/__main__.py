"""Build and run the harnesses of the C code under the sanitizers.

    python -m tests.shards.native.fuzz [--seconds 60] [--work FOLDER]

`fuzz_decode` gives the decoder any bytes under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer, half the
time from JPEG files of many kinds, which stay in the work folder as a corpus that grows; `same_kernels` compares the
vector kernels with portable C in memory that is guarded on both sides. It needs clang with its runtime (Debian: clang
and libclang-rt-14-dev or the one of your clang) and libjpeg-turbo's headers. Exit code 0: nothing was found.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.shards.decode.images import jpeg_kinds, picture

ROOT: Final = Path(__file__).resolve().parents[4]
SOURCES: Final = sorted(str(path) for path in (ROOT / "shards" / "native").glob("*.c"))
WARNINGS: Final = ["-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Wpointer-arith", "-Werror"]
SANITIZE: Final = ["-g", "-O1", "-ffp-contract=off", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]


def compiler() -> str:
    """The clang that is there.

    Raises:
        SystemExit: There is none.
    """
    for name in (os.environ.get("CLANG", ""), "clang", *(f"clang-{version}" for version in range(22, 12, -1))):
        if name and shutil.which(name):
            return name
    raise SystemExit("there is no clang: install it with its runtime (Debian: apt install clang libclang-rt-14-dev)")


def compile_harness(clang: str, name: str, sanitizers: str, folder: Path) -> Path:
    """Compile a harness with the decoder's sources."""
    program = folder / name
    source = str(Path(__file__).parent / f"{name}.c")
    command = [clang, "-std=c11", *WARNINGS, *SANITIZE, f"-fsanitize={sanitizers}", source, *SOURCES]
    done = subprocess.run([*command, "-ljpeg", "-lm", "-o", str(program)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} does not compile:\n{done.stderr}")
    return program


def write_corpus(folder: Path) -> list[str]:
    """JPEG files of every kind that the tests know, small; with settings in front for the fuzzer in `corpus`."""
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    (folder / "jpegs").mkdir(exist_ok=True)
    names = []
    for height, width in ((40, 56), (64, 64), (17, 90)):
        for number, blob in enumerate(jpeg_kinds(picture(height, width, height)).values()):
            name = folder / "jpegs" / f"{height}-{number:02d}.jpg"
            name.write_bytes(blob)
            (folder / "corpus" / name.stem).write_bytes(bytes([number * 37 % 256] * 8) + blob)
            names.append(str(name))
    return names


def run(seconds: int, work: Path) -> int:
    """Run both harnesses; returns the exit code."""
    clang = compiler()
    jpegs = write_corpus(work)
    kernels = compile_harness(clang, "same_kernels", "address,undefined", work)
    fuzzer = compile_harness(clang, "fuzz_decode", "fuzzer,address,undefined", work)
    code = subprocess.run([str(kernels), *jpegs], check=False).returncode
    limits = [
        f"-max_total_time={seconds}",
        "-max_len=20000",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    found = subprocess.run([str(fuzzer), *limits, f"-artifact_prefix={work}/", str(work / "corpus")], check=False)
    return code or found.returncode


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.shards.native.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long the fuzzer runs")
    parser.add_argument(
        "--work", type=Path, help="where programs, corpus and findings lie; a temporary folder without it"
    )
    arguments = parser.parse_args()
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
        return run(arguments.seconds, arguments.work)
    with tempfile.TemporaryDirectory(prefix="biovfm-fuzz-") as folder:
        return run(arguments.seconds, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
