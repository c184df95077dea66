"""The commands that use a hardened run where it is to work: `predict` and `export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medharden.cli.console import out
from medharden.cli.evidence import MaxDecoded
from medharden.sizes import MAX_DECODED

__all__ = ["released_app"]

released_app = typer.Typer()

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]
Arch = Annotated[
    str | None, typer.Option("--arch", help="python:MODULE:CLASS, where the run was made with it (runs that code).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Form(StrEnum):
    """What a model can be exported to."""

    ONNX = "onnx"
    PT2 = "pt2"
    TORCHSCRIPT = "torchscript"
    BUNDLE = "bundle"


class Quantised(StrEnum):
    """What weights can be made smaller to."""

    INT8 = "int8"
    FP16 = "fp16"


@released_app.command()
def predict(
    run: Run,
    files: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or folders of series or modalities.")],
    arch: Arch = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda, cuda:1, mps; auto takes CUDA, else MPS, else the CPU.")
    ] = "auto",
    max_decoded: MaxDecoded = MAX_DECODED,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table with a row a case.")] = False,
    as_json: Json = False,
) -> None:
    """Answer files through the view that the run was gated on: class, probabilities, referral.

    Slices of a series are one case where volumes are asked for, and so are images that are channels. A case that the
    view doesn't take is refused with its reason, and the exit code is 1; the others are answered.
    """
    if as_csv and as_json:
        raise typer.BadParameter("print one of --csv and --json", param_hint="--csv")
    out.json = as_json
    from medharden.cli.predicted import PredictJob, run_predict

    raise typer.Exit(run_predict(PredictJob(run, tuple(files), arch, device, max_decoded, as_csv)))


@released_app.command()
def export(
    run: Run,
    to: Annotated[Form, typer.Option("--to", help="The form: onnx, pt2 (torch.export), torchscript, or MONAI bundle.")],
    quantise: Annotated[
        Quantised | None, typer.Option("--quantise", help="int8 (of onnx) or fp16: another model, to be gated anew.")
    ] = None,
    ungated: Annotated[
        bool, typer.Option("--ungated", help="Export without a PASS; file name, metadata and card are marked.")
    ] = False,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Export from a signed state, whose signatures then are of the past.")
    ] = False,
    arch: Arch = None,
    as_json: Json = False,
) -> None:
    """Write the released model as one graph for other runtimes, below RUN/exports; refused without a PASS."""
    out.json = as_json
    from medharden.cli.exported import run_export

    run_export(run, to.value, quantise.value if quantise else "", ungated, supersede, arch)
