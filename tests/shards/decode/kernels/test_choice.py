"""Which kernels a device gets, and why."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from shards.decode.kernels import choice
from shards.errors import ConfigError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("BIOVFM_KERNELS", raising=False)
    choice._found.cache_clear()
    yield
    choice._found.cache_clear()


def pretend_triton(monkeypatch: pytest.MonkeyPatch, trial: Any, *, interpret: bool = False) -> None:
    runtime = SimpleNamespace(interpret=interpret)
    module = SimpleNamespace(__version__="9.9", knobs=SimpleNamespace(runtime=runtime), __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "triton", module)
    monkeypatch.setitem(sys.modules, "shards.decode.kernels.triton_crop", SimpleNamespace(try_on=trial))


def test_the_cpu_has_torch() -> None:
    assert choice.kernels_for(CPU) == choice.Kernels(name="torch", reason="cpu is no GPU")


def test_a_gpu_has_triton_after_one_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    pretend_triton(monkeypatch, tried.append)
    for _ in range(3):
        assert choice.kernels_for(GPU) == choice.Kernels(name="triton", reason="Triton 9.9")
    assert tried == [GPU]


def test_a_trial_that_fails_gives_torch_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def trial(_: Any) -> None:
        raise RuntimeError("Failed to find C compiler\nand much more")

    pretend_triton(monkeypatch, trial)
    found = choice.kernels_for(GPU)
    assert found.name == "torch"
    assert found.reason == "Triton does not work here (RuntimeError: Failed to find C compiler)"
    monkeypatch.setenv("BIOVFM_KERNELS", "triton")
    with pytest.raises(ConfigError, match="C compiler"):
        choice.kernels_for(GPU)


def test_the_interpreter_is_not_used_for_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_triton(monkeypatch, lambda _: None, interpret=True)
    assert choice.kernels_for(GPU).name == "torch"


def test_without_triton_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice.util, "find_spec", lambda _: None)
    assert "not installed" in choice.kernels_for(GPU).reason


def test_the_setting_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_triton(monkeypatch, lambda _: None)
    monkeypatch.setenv("BIOVFM_KERNELS", "torch")
    assert choice.kernels_for(GPU) == choice.Kernels(name="torch", reason="BIOVFM_KERNELS=torch")
    monkeypatch.setenv("BIOVFM_KERNELS", "triton")
    assert choice.kernels_for(GPU).name == "triton"
    with pytest.raises(ConfigError, match="cpu is no GPU"):
        choice.kernels_for(CPU)
    monkeypatch.setenv("BIOVFM_KERNELS", "cuda")
    with pytest.raises(ConfigError, match="auto, torch or triton"):
        choice.kernels_for(CPU)
