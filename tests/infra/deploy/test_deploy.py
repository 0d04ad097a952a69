"""The batch scripts: valid shell, and nothing but options that the commands and sbatch have."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from infra.cli import main

DEPLOY = Path(__file__).parents[3] / "infra" / "deploy"
SCRIPTS = sorted(DEPLOY.glob("*.sbatch"))


@pytest.mark.process
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_valid_shell(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_uses_options_that_its_command_has(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in script.read_text().splitlines() if "exec biovfm" in line]
    assert lines
    for line in lines:
        name, rest = re.search(r"exec biovfm (\w+) (.*)", line).groups()  # type: ignore[union-attr]
        assert main([name, "--help"]) == 0
        assert set(re.findall(r"--[a-z-]+", rest)) <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


def test_every_script_is_run_by_name_in_its_own_head() -> None:
    assert SCRIPTS
    for script in SCRIPTS:
        assert f"infra/deploy/{script.name} " in script.read_text()
