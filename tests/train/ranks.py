"""What two processes do together for `test_distributed.py`; started once, since starting costs seconds.

python -m tests.train.ranks OUT    with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from shards.decode.kernels.choice import Kernels
from shards.errors import ConfigError, SubsetError
from tests.shards.builders import add_source, jpeg, small_dataset
from tests.train.recipes import dino_recipe, mae_recipe
from tests.train.streams import MemoryStream
from train.choice import KernelFacts
from train.compiling import Missing
from train.distributed import World, join_world
from train.loop import Loop
from train.objectives.ibot import ibot_loss, mask_weights
from train.objectives.koleo import koleo_loss
from train.objectives.targets import EmaCenter, Sinkhorn
from train.recipe import Recipe
from train.run import PretrainResult, pretrain

FIXTURES = Path(__file__).parent / "fixtures"
STEPS = 6
COMPILED = ("mae", "dino-ema")
"""The recipes that are trained compiled, too."""


def recipes() -> dict[str, Recipe]:
    """One of each objective, with everything that could depend on how a batch is spread."""
    checkpoint = {"every": 2}
    return {
        "mae": mae_recipe(run={"steps": STEPS}, checkpoint=checkpoint),
        "dino-ema": dino_recipe(run={"steps": STEPS}, model={"drop_path": 0.3}, checkpoint=checkpoint),
        "dino-sinkhorn": dino_recipe(
            run={"steps": STEPS},
            method={"centering": "sinkhorn", "ibot_head": {"prototypes": 32, "hidden": 16, "bottleneck": 8}},
            checkpoint=checkpoint,
        ),
    }


def train(recipe: Recipe, out: Path, *, until: int = STEPS) -> PretrainResult | None:
    """Train, or be cut off before step `until` + 1."""

    class Cut(MemoryStream):
        def _batch(self, number: int) -> Any:
            if number == until:
                raise KeyboardInterrupt
            return super()._batch(number)

    try:
        return pretrain(recipe, data="memory", out=out, stream=Cut)
    except KeyboardInterrupt:
        return None


def with_parallel(recipe: Recipe, parallel: str) -> Recipe:
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"parallel": parallel})})


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with join_world() as world:
        results = targets_on_two_ranks(world)
        if world.is_first:
            np.savez(out / "targets.npz", **results)  # type: ignore[arg-type]
        refuse_other_recipes(out, world)
        refuse_other_data(out, world)
        train_with_kernels_of_one(out, world)
        refuse_other_kernels(out, world)
        refuse_to_compile_on_one(out, world)
        for name, recipe in recipes().items():
            for parallel in ("ddp", "fsdp"):
                train(with_parallel(recipe, parallel), out / f"{name}-{parallel}")
                train(with_parallel(recipe, parallel), out / f"{name}-relay-{parallel}", until=4)
        train_compiled_shards(out)
        resume_after_damage(with_parallel(recipes()["mae"], "fsdp"), out / "mae-fsdp", world)


def train_compiled_shards(out: Path) -> None:
    """FSDP2 with compiled parts: a whole run, and one that is cut off for another number of ranks to go on with.

    aot_eager traces and differentiates as Inductor's way does, and leaves out the code generation, which takes minutes
    on two cores.
    """
    with patch("train.compiling.BACKEND", "aot_eager"):
        for name in COMPILED:
            recipe = with_parallel(recipes()[name], "fsdp")
            recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"compile": True})})
            train(recipe, out / f"{name}-compiled")
            train(recipe, out / f"{name}-relay-compiled", until=4)


def refuse_other_recipes(out: Path, world: World) -> None:
    """Give each rank a recipe of its own, and write what it is told."""
    recipe = mae_recipe(optim={"base_lr": 1e-3 * (1 + world.rank)}, run={"decode_threads": 1 + world.rank})
    try:
        pretrain(recipe, data="memory", out=out / "refused", stream=MemoryStream)
    except ConfigError as error:
        (out / f"refused-{world.rank}.txt").write_text(str(error))


def refuse_other_data(out: Path, world: World) -> None:
    """Give each rank a copy of a dataset of its own, one of which has grown, and write what it is told."""
    data = out / f"data-{world.rank}"
    dataset = small_dataset(data)
    if world.rank:
        add_source(dataset, "late", "MR", [jpeg(number) for number in range(400, 408)])
    try:
        pretrain(mae_recipe(), data=str(data), out=out / "other-data")
    except SubsetError as error:
        (out / f"other-data-{world.rank}.txt").write_text(str(error))


def train_with_kernels_of_one(out: Path, world: World) -> None:
    """Train where the first rank has Triton and the other has not; write what each uses and is told."""
    own = Kernels(name="torch", reason="Triton is not installed") if world.rank else Kernels(name="triton", reason="T")
    told: list[str] = []

    def seen(loop: Loop, *arguments: Any, **named: Any) -> Any:
        told.append(f"uses {loop.method.kernels}")
        return run(loop, *arguments, **named)

    run = Loop.run
    facts = KernelFacts(kernels=own, capability="9.0")
    with patch("train.choice._kernel_facts", lambda _: facts), patch.object(Loop, "run", seen):
        pretrain(mae_recipe(run={"steps": 2}), data="memory", out=out / "kernels", stream=MemoryStream, say=told.append)
    (out / f"kernels-{world.rank}.txt").write_text("\n".join(told))


def refuse_other_kernels(out: Path, world: World) -> None:
    """Let one rank ask for kernels that it does not have, and write what both are told."""
    with patch.dict(os.environ, {"BIOVFM_KERNELS": "triton"} if world.rank else {}):
        try:
            pretrain(mae_recipe(), data="memory", out=out / "no-kernels", stream=MemoryStream)
        except ConfigError as error:
            (out / f"no-kernels-{world.rank}.txt").write_text(str(error))


def refuse_to_compile_on_one(out: Path, world: World) -> None:
    """Let one rank have no compiler, and write what both are told."""
    missing = Missing(reason="g++ is not found", remedy="install g++") if world.rank else None
    with patch("train.choice.find_missing", lambda _: missing):
        try:
            pretrain(mae_recipe(run={"compile": True}), data="memory", out=out / "no-compiler", stream=MemoryStream)
        except ConfigError as error:
            (out / f"no-compiler-{world.rank}.txt").write_text(str(error))


def resume_after_damage(recipe: Recipe, out: Path, world: World) -> None:
    """Cut the newest checkpoint's tensors of one rank, then go on."""
    if world.is_first:
        path = out / "checkpoints" / f"step-{STEPS:08d}" / "__1_0.distcp"
        path.write_bytes(path.read_bytes()[:-100])
    torch.distributed.barrier()
    result = train(recipe, out)
    assert result is not None
    assert result.resumed_from == STEPS - 2


def targets_on_two_ranks(world: World) -> dict[str, np.ndarray]:
    """Losses, centres and targets of the fixtures, their rows spread unevenly over two ranks."""
    out: dict[str, np.ndarray] = {}
    dino, ibot = (dict(np.load(FIXTURES / f"{name}.npz")) for name in ("dino_loss", "ibot_loss"))
    student = torch.from_numpy(ibot["student_patch_logits"]).reshape(-1, 32)[ibot["mask_indices"]]
    teacher = torch.from_numpy(ibot["teacher_patch_logits"]).reshape(-1, 32)[ibot["mask_indices"]]
    masks = torch.from_numpy(ibot["masks"])
    crops = slice(0, 1) if world.rank == 0 else slice(1, 6)  # 3 masked patches here, 16 there
    patches = slice(0, 3) if world.rank == 0 else slice(3, 19)
    weights = mask_weights(masks[crops])
    for mode in ("centering", "sinkhorn"):
        targets = EmaCenter(32) if mode == "centering" else Sinkhorn()
        targets.temperature = float(ibot["teacher_temp"])
        if isinstance(targets, EmaCenter):
            targets.center.copy_(torch.from_numpy(ibot["center_before"]).view(1, -1))
        probabilities = targets(teacher[patches])
        targets.move()
        temperature = float(ibot["student_temp"])
        loss = ibot_loss(student[patches], probabilities, weights, num_crops=6, temperature=temperature)
        out[f"ibot_{mode}_loss"] = summed(loss)
        if isinstance(targets, EmaCenter):
            out["ibot_center"] = targets.center.numpy()
    rows = torch.from_numpy(dino["teacher_global"])[[0, 1, 4] if world.rank == 0 else [2, 3, 5, 6, 7]]
    for mode in ("centering", "sinkhorn"):
        targets = EmaCenter(32) if mode == "centering" else Sinkhorn()
        targets.temperature = float(dino["teacher_temp"])
        if isinstance(targets, EmaCenter):
            targets.center.copy_(torch.from_numpy(dino["center_before"]))
        out[f"dino_{mode}_probabilities"] = gathered(targets(rows), world)
        targets.move()
        if isinstance(targets, EmaCenter):
            out["dino_center"] = targets.center.numpy()
    koleo = torch.from_numpy(np.load(FIXTURES / "koleo_loss.npz")["two_crops_cls"]).view(2, 6, 24)
    out["koleo"] = summed(0.1 * koleo_loss(koleo[world.rank]))
    return out


def summed(value: torch.Tensor) -> np.ndarray:
    value = value.detach().clone()
    torch.distributed.all_reduce(value)
    return value.numpy()


def gathered(rows: torch.Tensor, world: World) -> np.ndarray:
    parts: list[Any] = [None] * world.size
    torch.distributed.all_gather_object(parts, rows.numpy())
    return np.concatenate(parts)


def launch(out: Path, *, world_size: int = 2, module: str = "tests.train.ranks", words: Sequence[str] = ()) -> None:
    """Run a module's `main` in `world_size` processes that find each other, and wait for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", module, str(out), *words]
    running = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank), "OMP_NUM_THREADS": "1"})
        for rank in range(world_size)
    ]
    try:
        codes = [process.wait(timeout=600) for process in running]
    finally:
        for process in running:
            process.kill()
    assert codes == [0] * world_size


if __name__ == "__main__":
    main(Path(sys.argv[1]))
