"""The commands about protocols: `protocol list`, `show`, `validate`, `plan` and `new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medharden.cli.console import out
from medharden.cli.evidence import MaxDecoded
from medharden.sizes import MAX_DECODED

__all__ = ["protocol_app"]

protocol_app = typer.Typer(help="Write, list, show, validate and plan protocols.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Threads, or processes, that read files.")]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder that keeps decoded cases for later commands. It holds patient images."),
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="Pseudonym key; default: your configuration folder.")]


@protocol_app.command("new")
def new_protocol(
    data: Annotated[
        Path, typer.Option("--data", help="Folder with a sub-folder a class, manifest CSV (or its folder), or .npz.")
    ],
    target: Annotated[Path, typer.Option("--out", help="YAML file to write; none is overwritten.")],
    model: Annotated[Path | None, typer.Option("--model", help="Model that it is for.")] = None,
    arch: Annotated[str | None, typer.Option("--arch", help="timm:NAME, monai:NAME, or python:MODULE:CLASS.")] = None,
    like: Annotated[
        str, typer.Option("--like", help="Protocol whose columns, shares of splits and model arguments hold.")
    ] = "default",
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: take what is proposed.")] = False,
    workers: Workers = 2,
    max_decoded: MaxDecoded = MAX_DECODED,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Write a commented protocol for a cohort and a model, in which what a person must decide is marked."""
    out.json = as_json
    from medharden.cli.drafted import Draft, run_new

    run_new(Draft(data, model, target, arch, like, yes, workers, key_file, max_decoded))


@protocol_app.command("list")
def list_protocols(as_json: Json = False) -> None:
    """The shipped protocols."""
    out.json = as_json
    from medharden.cli.protocols import run_list

    run_list()


@protocol_app.command("show")
def show_protocol(name: Annotated[str, typer.Argument(help="Name or path.")], as_json: Json = False) -> None:
    """Every field of a protocol, defaults included, and its digest."""
    out.json = as_json
    from medharden.cli.protocols import run_show

    run_show(name)


@protocol_app.command("validate")
def validate_protocol(name: Annotated[str, typer.Argument(help="Name or path.")], as_json: Json = False) -> None:
    """Check a protocol file; exit code 1 where it has errors."""
    out.json = as_json
    from medharden.cli.protocols import run_validate

    run_validate(name)


@protocol_app.command("plan")
def plan_protocol(
    name: Annotated[str, typer.Argument(help="Name or path.")],
    cases: Annotated[int | None, typer.Option("--cases", min=1, help="Test cases in all.")] = None,
    positives: Annotated[int | None, typer.Option("--positives", min=0, help="Those with the finding.")] = None,
    discordance: Annotated[
        float,
        typer.Option("--discordance", min=0.0, max=1.0, help="Share of cases answered with different success."),
    ] = 0.05,
    expected_loss: Annotated[
        float, typer.Option("--expected-loss", min=0.0, max=1.0, help="Share of cases that is truly lost.")
    ] = 0.0,
    data: Annotated[Path | None, typer.Option("--data", help="Count the test split of this cohort.")] = None,
    workers: Workers = 2,
    max_decoded: MaxDecoded = MAX_DECODED,
    cache: Cache = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """How many cases each margin needs, and what those at hand can show; no test case is answered."""
    out.json = as_json
    from medharden.cli.planned import run_plan

    run_plan(name, cases, positives, discordance, expected_loss, data, workers, max_decoded, key_file, cache)
