"""Every command ends with 0, 1, 2 or 130, and says in one line what was wrong."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra import cli
from infra.cli import COMMANDS, main
from tests.shards.builders import small_dataset

SUB = {
    "subset": ("create", "show", "verify", "diff", "materialize", "export"),
    "sources": ("list", "show", "check", "new", "fetch"),
    "columns": ("add", "list", "remove"),
}
pytestmark = pytest.mark.torch
ENDLESS = {"s3-server", "serve", "demo", "doctor"}
"""Commands that need no argument: they serve, or run on this machine."""
CALLS = [(name, sub) for name in sorted(COMMANDS) for sub in SUB.get(name, ("",))]


def words(name: str, sub: str) -> list[str]:
    return [name, sub] if sub else [name]


def ends_well(arguments: list[str], capsys: pytest.CaptureFixture[str], codes: set[int]) -> str:
    assert main(arguments) in codes
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(("name", "sub"), CALLS)
def test_wrong_use_is_2(name: str, sub: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = ends_well([*words(name, sub), "--no-such-option", "1"], capsys, {2})
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(("name", "sub"), [call for call in CALLS if call[0] not in ENDLESS])
@pytest.mark.parametrize("kind", ["nothing", "gone", "a folder", "no yaml", "binary", "nul"])
def test_an_argument_of_no_use_is_1_or_2(
    name: str, sub: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no.yaml").write_text("a: [\n")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    place = {
        "gone": "gone",
        "a folder": ".",
        "no yaml": "no.yaml",
        "binary": "binary.yaml",
        "nul": "a\0b",
        "no text": "a\udcff",
    }.get(kind)
    arguments = [] if place is None else [place] * _positions(name, sub, capsys)
    codes = {0, 1, 2} if not arguments or kind == "a folder" else {1, 2}
    ends_well([*words(name, sub), *arguments], capsys, codes)


def _positions(name: str, sub: str, capsys: pytest.CaptureFixture[str]) -> int:
    """How many arguments without a name a command wants, by its help."""
    assert main([*words(name, sub), "--help"]) == 0
    usage = re.search(r"Usage: (.*)", capsys.readouterr().out)
    assert usage is not None
    return max(1, len(re.findall(r"\b[A-Z][A-Z_-]+\b", usage[1].replace("COMMAND", "").replace("[OPTIONS]", ""))))


def test_no_memory_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("shards.dataset.dataset.Dataset.open", full)
    assert "out of memory" in ends_well(["stats", "x"], capsys, {1})


def test_what_nobody_foresaw_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("no\nsuch thing")

    monkeypatch.setattr("shards.dataset.dataset.Dataset.open", fail)
    assert "unexpected LookupError: no such thing — BIOVFM_DEBUG=1" in ends_well(["stats", "x"], capsys, {1})


def test_a_pipe_that_breaks_elsewhere_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("shards.dataset.dataset.Dataset.open", fail)
    monkeypatch.setattr("infra.cli.reader_has_left", lambda: False)
    assert "Broken pipe" in ends_well(["stats", "x"], capsys, {1})


@pytest.mark.process
@pytest.mark.parametrize(
    ("output", "code"), [(">&-", 1), (">/dev/full", 1), ("<&- 2>&- >/dev/null", 0), ("| head -1", 0)]
)
def test_an_answer_that_cannot_be_written_is_1(tmp_path: Path, output: str, code: int) -> None:
    dataset = small_dataset(tmp_path / "data")
    program = str(Path(sys.executable).parent / "biovfm")
    call = ["bash", "-c", f"{program} stats {dataset.url} {output}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == code


@pytest.mark.process
@pytest.mark.parametrize("words", ["--help", "sources list", "stats --help"])
def test_a_reader_that_has_left_is_no_failure(words: str) -> None:
    program = str(Path(sys.executable).parent / "biovfm")
    call = ["bash", "-c", f"{program} {words} | true; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.process
def test_no_file_handles_is_one_line_at_the_end(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    program = str(Path(sys.executable).parent / "biovfm")
    call = ["bash", "-c", f"ulimit -n 12; exec {program} stats {dataset.url}"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Too many open files" in done.stderr.splitlines()[-1]


@pytest.mark.process
def test_a_path_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "biovfm")
    place = os.fsencode(tmp_path) + b"/\xff"
    done = subprocess.run([program, "stats", place], capture_output=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_130(tmp_path: Path, number: signal.Signals) -> None:
    dataset = small_dataset(tmp_path / "data")
    program = str(Path(sys.executable).parent / "biovfm")
    calls = [["serve", dataset.url, "--port", "0"], ["s3-server", str(tmp_path / "s3")]]
    for call in calls:
        process = subprocess.Popen(
            [program, *call], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert process.stderr is not None
        told = process.stderr.readline()
        if "http://127.0.0.1:" not in told:
            _, errors = process.communicate(timeout=60)
            assert "s3-server" in call, told + errors  # its program is not installed here
            continue
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in ({130} if "serve" in call else {0, 130}), errors
        assert "Traceback" not in errors


CLEANED: list[str] = []


def terminated_twice() -> None:
    """A command that gets SIGTERM while it works, and again while it cleans up."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        CLEANED.append("all of it")


def test_another_sigterm_does_not_disturb_the_cleaning_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "terminated", (f"{__name__}:terminated_twice", "Is terminated twice."))
    before = signal.getsignal(signal.SIGTERM)
    assert (main(["terminated"]), CLEANED) == (130, ["all of it"])
    assert capsys.readouterr().err.splitlines() == [
        "biovfm: interrupted; nothing is broken, run the same command again to go on"
    ]
    assert signal.getsignal(signal.SIGTERM) is before


class Interrupted:
    """A signal comes in its destructor, where the interpreter drops what is raised."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)
        time.sleep(0.1)  # the signal's handler runs here


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_the_interpreter_drops_comes_again(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def command() -> None:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may have it ignored
        try:
            Interrupted(number)
            time.sleep(10)
        finally:
            signal.signal(signal.SIGINT, before)
        ended.append(number)

    ended: list[signal.Signals] = []
    monkeypatch.setattr(sys.modules[__name__], "dropping", command, raising=False)
    monkeypatch.setitem(COMMANDS, "dropping", (f"{__name__}:dropping", "Loses a signal."))
    hook = sys.unraisablehook
    assert (main(["dropping"]), ended) == (130, [])
    assert sys.unraisablehook is hook


def swallowed() -> None:
    """SIGTERM comes in the middle of an import that goes on without what it was importing."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    except BaseException:  # noqa: BLE001 - as libraries do
        pass
    raise AttributeError("module has no attribute")


def test_what_becomes_of_a_library_that_swallows_a_signal_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "swallowed", (f"{__name__}:swallowed", "Loses a signal."))
    assert main(["swallowed"]) == 130
    assert "unexpected" not in capsys.readouterr().err


def test_sigterm_while_an_error_is_told_is_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []

    def tell(message: str) -> None:
        told.append(message)
        if len(told) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cli, "log_failure", tell)
    assert main(["stats", str(tmp_path / "nothing")]) == 130
    assert told[1].startswith("interrupted")


@pytest.mark.slow
def test_a_server_of_a_background_shell_ends_as_interrupted(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    program = str(Path(sys.executable).parent / "biovfm")
    call = ["bash", "-c", f"trap '' INT; exec {program} serve {dataset.url} --port 0"]  # as with `&` in a script
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "shows" in process.stderr.readline()
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
    assert process.returncode == 130
