"""Time of a training step against a plain restatement of the reference's, on this CPU.

    python -m infra.bench.train_step [--case mae-tiny ...] [--steps 12]
    python -m infra.bench.train_step --feed DATASET_OR_LOCK    how long an accelerator's step would wait for bytes

Both sides get the same sizes, the same batch in memory, float32, the same threads; data loading and augmentation are
left out on both (the reference does them in other processes). The two alternate step by step, so that a noisy
neighbour hurts both, and the medians are compared: a ratio above 1 means that ours is faster. Processor time is given
too: with `--threads 1` it hardly depends on what else the machine does.

`--feed` streams compressed bytes, nothing decoded, into steps that only sleep for as long as an H100 needs for a DINOv2
step of ViT-B/16 at batch 256: `h100_step_seconds` derives it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from infra.bench.plain_reference import PlainDino, PlainMae
from train.methods import DinoV2, Mae, build_method
from train.optim import build_optimizer, clip_each, set_step_values
from train.randomness import Share
from train.recipe import DinoConfig, MaeConfig, Recipe
from train.recipe_files import load_recipe
from train.schedules import schedule

IMAGENET_IMAGES = 1_281_167
"""The epoch of recipes whose length is in epochs: the schedules' values depend on it a little."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mae-tiny": ("tiny", {}),
    "dinov2-tiny": ("tiny-dinov2", {"method.centering": "ema"}),
    "mae-vits": (
        "mae-paper",
        {"model.size": "small", "run.global_batch": 16, "run.unit_images": 16, "run.precision": "fp32"},
    ),
    "dinov2-vits": (
        "dinov2-short",
        {"model.size": "small", "run.global_batch": 4, "run.unit_images": 4, "run.precision": "fp32"},
    ),
}


def main() -> None:
    """Run the cases and print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--feed", metavar="DATASET_OR_LOCK")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.feed:
        print(json.dumps(feed(arguments.feed, steps=arguments.steps)))
        return
    for case in arguments.case:
        print(json.dumps(measure(case, steps=arguments.steps)), flush=True)


def measure(case: str, *, steps: int) -> dict[str, Any]:
    """Median wall and processor time a step of both sides, in seconds, and their ratios."""
    name, overrides = CASES[case]
    recipe = load_recipe(name, overrides)
    ours, plain = both_sides(recipe)
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    cpu: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(steps + 1):
        for side, run in (("ours", ours), ("plain", plain)):
            began, began_cpu = time.perf_counter(), time.process_time()
            run()
            if number >= 1:
                times[side].append(time.perf_counter() - began)
                cpu[side].append(time.process_time() - began_cpu)
    medians = {side: statistics.median(values) for side, values in times.items()}
    cpu_medians = {side: statistics.median(values) for side, values in cpu.items()}
    return {
        "case": case,
        "batch": recipe.run.global_batch,
        "threads": torch.get_num_threads(),
        "ours_seconds": round(medians["ours"], 4),
        "plain_seconds": round(medians["plain"], 4),
        "ratio": round(medians["plain"] / medians["ours"], 3),
        "ours_cpu_seconds": round(cpu_medians["ours"], 4),
        "plain_cpu_seconds": round(cpu_medians["plain"], 4),
        "cpu_ratio": round(cpu_medians["plain"] / cpu_medians["ours"], 3),
    }


def h100_step_seconds(*, batch: int = 256, flops_per_second: float = 4e14) -> float:
    """Length of a DINOv2 step of ViT-B/16 (2 x 224 px, 8 x 96 px) on one H100, in seconds.

    A token costs two operations a weight forwards (86 million weights) and twice that backwards. A student sees 2 x 197
    and 8 x 37 tokens, the teacher 2 x 197 forwards only: (690 x 3 + 394) x 172 MFLOP = 423 GFLOP an image, and about
    12 GFLOP more in the heads. `flops_per_second` is 40 % of the 990 TFLOP/s that the data sheet gives for bf16.
    """
    tokens = (2 * 197 + 8 * 37) * 3 + 2 * 197
    return batch * (tokens * 2 * 85.8e6 + 12e9) / flops_per_second


def feed(data: str, *, steps: int, batch: int = 256) -> dict[str, Any]:
    """Share of the time that sleeping steps of that length wait for raw bytes."""
    from shards.stream.stream import Stream

    length = h100_step_seconds(batch=batch)
    waited, images_bytes = 0.0, 0
    with Stream(data, crops=(), global_batch=batch, seed=0) as stream:
        batches = iter(stream)
        next(batches)
        began = time.perf_counter()
        for _ in range(steps):
            time.sleep(length)
            asked = time.perf_counter()
            blobs = next(batches).blobs
            waited += time.perf_counter() - asked
            images_bytes += sum(map(len, blobs))
        seconds = time.perf_counter() - began
    return {
        "batch": batch,
        "step_seconds": round(length, 4),
        "steps": steps,
        "images_per_second_needed": round(batch / length),
        "megabytes_per_second": round(images_bytes / seconds / 1e6, 1),
        "stall_share": round(waited / seconds, 5),
    }


def both_sides(recipe: Recipe) -> tuple[Callable[[], object], Callable[[], object]]:
    """One step of ours and one of the plain restatement, on the same prepared batch."""
    run = recipe.run
    method = build_method(recipe)
    generator = torch.Generator().manual_seed(0)
    views = [
        torch.randint(
            256, (run.global_batch, crop.num, crop.size_px, crop.size_px, 3), dtype=torch.uint8, generator=generator
        )
        for crop in recipe.crops()
    ]
    share = Share(
        seed=0, step=0, first_unit=0, num_units=run.global_batch // run.unit_images, unit_images=run.unit_images
    )
    inputs = method.prepare(views, share)
    return our_step(recipe, method, inputs), plain_step(recipe, inputs)


def our_step(recipe: Recipe, method: DinoV2 | Mae | Any, inputs: Any) -> Callable[[], object]:
    """Forward, backward, clipping, AdamW, EMA as the loop does them."""
    optimizer = build_optimizer(method.network, method.multipliers, recipe.optim)
    recipe = recipe.in_steps(IMAGENET_IMAGES)
    values = schedule(recipe, recipe.run.steps // 2)

    def step() -> float:
        set_step_values(optimizer, values)
        losses = method.losses(method.network, inputs, values)
        losses.total.backward()
        clip_each(method.clip_modules(), recipe.optim.clip_norm)
        optimizer.step()
        method.update_teacher(values.momentum)
        method.end_step()
        optimizer.zero_grad(set_to_none=True)
        return float(losses.total.detach())

    return step


def plain_step(recipe: Recipe, inputs: Any) -> Callable[[], object]:
    """The restatement at the same sizes."""
    from train.backbone import SIZES

    size = SIZES[recipe.model.size]
    vit: dict[str, object] = {
        "size_px": recipe.image_size_px,
        "patch": recipe.model.patch_size,
        "width": size.width,
        "depth": size.depth,
        "heads": size.heads,
        "scale": recipe.model.layer_scale,
        "drop": recipe.model.drop_path,
    }
    config = recipe.method
    if isinstance(config, MaeConfig):
        from train.objectives.mae import unpatchify

        plain = PlainMae(vit, width=config.decoder_width, depth=config.decoder_depth, heads=config.decoder_heads)
        images = unpatchify(inputs.patches, recipe.model.patch_size)
        noise = torch.rand(inputs.patches.shape[:2])
        return lambda: plain.step(images, noise)
    assert isinstance(config, DinoConfig)
    head = config.head
    dino = PlainDino(vit, {"hidden": head.hidden, "bottleneck": head.bottleneck, "prototypes": head.prototypes})
    return lambda: dino.step(
        inputs.global_images, inputs.local_images, inputs.masks, inputs.masked_rows, inputs.weights
    )


if __name__ == "__main__":
    main()
