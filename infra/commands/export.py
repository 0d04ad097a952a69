"""`biovfm export`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from infra.console import answer, emit


def export(
    run: str,
    /,
    *,
    step: int | None = None,
    out: str | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Write a run's backbone (the teacher's, for DINOv2) as a folder that timm and the Hugging Face hub load.

    Example: `biovfm export runs/a --step 10000 --out exports/a-10000`

    Example: `biovfm export s3://bucket/runs/a --out exports/a`

    Then: `timm.create_model("local-dir:exports/a-10000", pretrained=True, num_classes=0)`

    Parameters
    ----------
    run
        Output folder of `biovfm pretrain`, or its URL.
    step
        Which checkpoint; the newest without it. 0 is the network as training began, to compare with.
    out
        Folder or URL to write; RUN/export without it.
    """
    from train.run_export import export_anywhere

    folder = export_anywhere(run, step=step, out=out)
    if json_:
        emit({"export": folder})
    else:
        answer(f"wrote {folder}")
