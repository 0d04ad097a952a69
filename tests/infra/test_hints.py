"""Every command and option that a hint, a help text or the README names is there."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from infra.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
PACKAGES = ("shards", "ingest", "train", "eval", "infra")
GROUPS = {"columns", "deploy", "secret", "sources", "subset"}
_CALL = re.compile(r"\bbiovfm ([a-z][a-z0-9-]+)((?:(?!\bbiovfm )[^`\n#;])*)")
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]+[a-z])")


@cache
def help_of(*words: str) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        assert main([*words, "--help"]) == 0
    return text.getvalue()


@cache
def options_of(*words: str) -> frozenset[str]:
    return frozenset(_OPTION.findall(help_of(*words))) | {"help", "version"}


@cache
def sub_commands(group: str) -> frozenset[str]:
    return frozenset(re.findall(r"^│?\s*([a-z]+)\s{2,}", help_of(group), re.MULTILINE))


def every_option() -> frozenset[str]:
    found: set[str] = set()
    for name in COMMANDS:
        found |= options_of(name)
        if name in GROUPS:
            found = found.union(*(options_of(name, sub) for sub in sub_commands(name)))
    return frozenset(found)


def texts() -> Iterator[tuple[str, str]]:
    """Where it stands, and a text of the project: strings and docstrings of the code, and the README."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "bench" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
    for number, line in enumerate((ROOT / "README.md").read_text(encoding="utf-8").splitlines(), 1):
        yield f"README.md:{number}", line


def calls() -> Iterator[tuple[str, list[str], frozenset[str]]]:
    """Where, the command (with its sub-command), and the options that follow it."""
    for where, text in texts():
        for command, rest in _CALL.findall(text):
            words = [command]
            following = rest.split()
            if command in GROUPS and following and re.fullmatch(r"[a-z]+", following[0]):
                words.append(following[0])
            yield where, words, frozenset(_OPTION.findall(rest))


_NO_COMMANDS = {"ingest", "is", "release", "that"}  # words of sentences: "the biovfm release that wrote it"


@pytest.mark.slow
def test_the_commands_that_are_named_exist() -> None:
    named = [(where, words) for where, words, _ in calls() if words[0] not in _NO_COMMANDS - COMMANDS.keys()]
    assert len(named) > 60
    wrong = [
        (where, " ".join(words))
        for where, words in named
        if words[0] not in COMMANDS or (len(words) > 1 and words[1] not in sub_commands(words[0]))
    ]
    assert not wrong


@pytest.mark.slow
def test_the_options_that_are_named_with_a_command_exist() -> None:
    named = [(where, words, options) for where, words, options in calls() if words[0] in COMMANDS and options]
    assert len(named) > 20
    wrong = [
        (where, " ".join(words), sorted(options - options_of(*words)))
        for where, words, options in named
        if not options <= options_of(*words)
    ]
    assert not wrong


_FOREIGN = {
    "nproc-per-node",
    "no-python",
    "force-reinstall",
    "no-deps",
    "no-binary",
    "array",
    "export",
    "nodes",
    "ntasks",
    "wrap",
}
"""Options of torchrun, pip and Slurm."""


@pytest.mark.slow
def test_the_options_that_hints_name_exist() -> None:
    """A hint of a command's own module speaks of that command; one from below, of some command."""
    everywhere = every_option()
    wrong = []
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        if "bench" in path.parts:
            continue
        own = next((name for name, (target, _) in COMMANDS.items() if target.startswith(_module(path) + ":")), "")
        known = everywhere if not own or own in GROUPS else options_of(own)
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for keyword in call.keywords if isinstance(call, ast.Call) else ():
                if keyword.arg != "hint":
                    continue
                text = " ".join(node.value for node in ast.walk(keyword.value) if _is_text(node))  # type: ignore[attr-defined]
                if "biovfm " in text:
                    continue  # another command's option may stand there: the test above looks at these
                unknown = set(_OPTION.findall(text)) - known - _FOREIGN
                wrong += [(f"{path.relative_to(ROOT)}:{call.lineno}", name) for name in sorted(unknown)]
    assert not wrong


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_no_empty_default(name: str) -> None:
    shown = help_of(name)
    for sub in sub_commands(name) if name in GROUPS else ():
        shown += help_of(name, sub)
    assert "[default: ()]" not in shown
    assert "[default: None]" not in shown
