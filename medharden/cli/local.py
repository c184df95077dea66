"""The commands about this machine: `bench`, `doctor`, `explain`, and `cache list` and `cache remove`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medharden.cli.console import out
from medharden.cli.evidence import MaxDecoded
from medharden.sizes import MAX_DECODED

__all__ = ["local_app"]

local_app = typer.Typer()
cache_app = typer.Typer(help="List and remove decoded cases that --cache kept.", no_args_is_help=True)
local_app.add_typer(cache_app, name="cache")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="What --cache was given.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@local_app.command()
def bench(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Checkpoint, state dict or MONAI bundle folder; or a run directory.")
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder with a sub-folder a class, manifest CSV (or its folder), or .npz."),
    ] = None,
    protocol: Annotated[str, typer.Option("--protocol", help="Name of a shipped protocol, or path.")] = "default",
    arch: Annotated[str | None, typer.Option("--arch", help="timm:NAME, monai:NAME, or python:MODULE:CLASS.")] = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda, cuda:1, mps; auto takes CUDA, else MPS, else the CPU.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Cases a pass in evaluation.")] = 64,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Threads that read files.")] = 2,
    max_decoded: MaxDecoded = MAX_DECODED,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="Pseudonym key.")] = None,
    as_json: Json = False,
) -> None:
    """Measure what a whole run would take; of a run directory, what an answer costs in each form. Writes nothing."""
    out.json = as_json
    if (model / "hardened.json").is_file():
        from medharden.cli.latency import run_latency

        run_latency(model, arch)
        return
    if data is None:
        raise typer.BadParameter("is needed, but for a run directory", param_hint="--data")
    from medharden.cli.benched import run_bench
    from medharden.cli.pipeline import Job

    job = Job(
        model=model,
        data=data,
        protocol=protocol,
        run=Path(),
        arch=arch,
        device=device,
        batch_size=batch_size,
        workers=workers,
        key_file=key_file,
        pictures=False,
        max_decoded=max_decoded,
    )
    run_bench(job, protocol, dry=False)


@local_app.command()
def doctor(
    folder: Annotated[Path, typer.Option("--folder", help="Where runs are to be written.")] = Path(),
    as_json: Json = False,
) -> None:
    """Show versions, devices, codecs and disk, what is missing, and the line that brings it."""
    out.json = as_json
    from medharden.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(folder))


@local_app.command()
def explain(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="Such as gate.copies or FAIL; default: all.")] = (
        None
    ),
    as_json: Json = False,
) -> None:
    """Say what a code of a verdict, reason, finding or error means, why it matters, and what to do."""
    out.json = as_json
    from medharden.cli.explained import run_explain

    run_explain(code)


@cache_app.command("list")
def list_cache(folder: Folder, as_json: Json = False) -> None:
    """What a cache holds: a store for each view of the images and pseudonym key."""
    out.json = as_json
    from medharden.cli.caches import run_cache_list

    run_cache_list(folder)


@cache_app.command("remove")
def remove_cache(
    folder: Folder,
    stores: Annotated[list[str] | None, typer.Argument(metavar="[STORE]", help="Names; default: all.")] = None,
    as_json: Json = False,
) -> None:
    """Remove decoded cases; other files stay."""
    out.json = as_json
    from medharden.cli.caches import run_cache_remove

    run_cache_remove(folder, tuple(stores or ()))
