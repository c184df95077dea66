"""The commands about a finished run directory: `keygen`, `sign`, `verify`, `diff`; and `compare`, which needs none."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medharden.cli.console import out
from medharden.sizes import MAX_DECODED, parse_bytes

__all__ = ["By", "ByRole", "Independent", "MaxDecoded", "Seeds", "TesterKey", "evidence_app"]

evidence_app = typer.Typer()

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]
MaxDecoded = Annotated[
    int,
    typer.Option(
        "--max-decoded",
        parser=parse_bytes,
        metavar="SIZE",
        show_default="1GiB",
        rich_help_panel="Data",
        help="Memory that reading one file may take, and all threads together (512MiB, 2GiB).",
    ),
]
Dicomweb = Annotated[
    str | None,
    typer.Option(
        "--dicomweb",
        metavar="URL",
        rich_help_panel="Data",
        help="DICOMweb server that has the series or studies which the rows of --data (CSV) name by UID.",
    ),
]
_INDEPENDENT = "Independent test"
Independent = Annotated[
    bool,
    typer.Option(
        "--independent",
        rich_help_panel=_INDEPENDENT,
        help="Test a release that was evaluated again, apart from those who made it.",
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        "--seeds", min=1, max=20, rich_help_panel="Run", help="Seeds to harden under, for their spread on validation."
    ),
]
By = Annotated[str | None, typer.Option("--by", rich_help_panel=_INDEPENDENT, help="Who tests, in print.")]
ByRole = Annotated[
    str | None, typer.Option("--role", rich_help_panel=_INDEPENDENT, help="As what, such as 'test laboratory'.")
]
TesterKey = Annotated[
    Path | None,
    typer.Option("--key", rich_help_panel=_INDEPENDENT, help="The tester's private key (PEM), which signs the test."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
JsonToo = Annotated[bool, typer.Option("--json", help="The same as --format json.")]


class Plain(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


class Summary(StrEnum):
    """How a comparison is printed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class Meaning(StrEnum):
    """What a signature means (21 CFR 11.50(a)(3))."""

    AUTHORSHIP = "authorship"
    REVIEW = "review"
    APPROVAL = "approval"
    RESPONSIBILITY = "responsibility"


@evidence_app.command()
def keygen(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Private key to write; FILE.pub is the public one.")],
    as_json: Json = False,
) -> None:
    """Make a key pair (Ed25519) for `medharden sign`."""
    out.json = as_json
    from medharden.cli.verification import run_keygen

    run_keygen(path)


@evidence_app.command()
def sign(
    run: Run,
    key: Annotated[Path, typer.Option("--key", help="Your private key (PEM).")],
    name: Annotated[str, typer.Option("--name", help="Who you are, in print.")],
    role: Annotated[str, typer.Option("--role", help="As what you sign, such as 'quality manager'.")],
    meaning: Annotated[Meaning, typer.Option("--meaning", help="What your signature means.")],
    reason: Annotated[str, typer.Option("--reason", help="Why you sign.")],
    supersede: Annotated[bool, typer.Option("--supersede", help="Drop the signatures of an earlier state.")] = False,
    as_json: Json = False,
) -> None:
    """Sign a run directory, with its verdict and provenance; several people may, one after the other."""
    out.json = as_json
    from medharden.cli.verification import run_sign
    from medharden.verifying import Signatory

    run_sign(run, key, Signatory(name, role, meaning.value, reason), supersede=supersede)


@evidence_app.command()
def verify(
    run: Run,
    keys: Annotated[
        list[Path] | None, typer.Option("--key", help="Public key (PEM) to check signatures under; may be repeated.")
    ] = None,
    require_signature: Annotated[
        bool, typer.Option("--require-signature", help="Not verified unless a signature is, under a --key.")
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="Name, file or digest of the protocol that you require the run to be under."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="The original file, to compare the clean path with bit for bit.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The run's data, to run both models on.")] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="timm:NAME, monai:NAME, or python:MODULE:CLASS (runs that code).")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Threads that read files.")] = 2,
    max_decoded: MaxDecoded = MAX_DECODED,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="Pseudonym key of the run.")] = None,
    form: Annotated[Plain, typer.Option("--format", help="How to print what was found.")] = Plain.TEXT,
    as_json: JsonToo = False,
) -> None:
    """Check a run directory offline: every file's digest, the log, the signatures; exit code 5 names what is wrong."""
    out.json = as_json or form is Plain.JSON
    from medharden.cli.verification import Check, run_verify

    public = tuple(keys or ())
    check = Check(run, public, require_signature, protocol, model, data, arch, key_file, workers, max_decoded)
    raise typer.Exit(run_verify(check))


@evidence_app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run directory.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Run directory to compare with it.")],
    form: Annotated[Plain, typer.Option("--format", help="How to print the differences.")] = Plain.TEXT,
    as_json: JsonToo = False,
) -> None:
    """Show what changed from one run to another: protocol, model, data, environment, endpoints and verdict."""
    out.json = as_json or form is Plain.JSON
    from medharden.cli.comparison import run_diff

    run_diff(first, second)


@evidence_app.command()
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Answers or scores of the present model.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Those of the new one, to the same cases.")],
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="CSV of each case's label and patient, where they stand in neither."),
    ] = None,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="METRIC=LOSS",
            help="Largest acceptable loss, such as accuracy=0.02 or sensitivity=0.03; may be given again.",
        ),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="One-sided error of each margin.")] = 0.025,
    positive: Annotated[
        str | None, typer.Option("--positive", help="Of two classes the finding: its recall is sensitivity.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="All class names, where some occur in no label: A,B,C.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Score from which the positive class is answered; 0.5 of probabilities."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="PART=NAME",
            help="Which column is the case, patient, label, answer or score; may be given again.",
        ),
    ] = None,
    each_case: Annotated[
        str | None,
        typer.Option("--each-case", help="How it is known that each case that names no patient is one of its own."),
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder for compare.html and compare.json.")] = None,
    form: Annotated[Summary, typer.Option("--format", help="How to print the comparison.")] = Summary.TEXT,
    as_json: JsonToo = False,
) -> None:
    """Compare two models' answers in pairs, by patient, from CSV files alone; no model and no run is needed.

    The exit code is the verdict's where a margin is stated, else 0.
    """
    out.json = as_json or form is Summary.JSON
    from medharden.cli.comparison import CompareJob, run_compare

    job = CompareJob(
        old,
        new,
        truth,
        tuple(margin or ()),
        alpha,
        positive,
        classes or "",
        threshold,
        tuple(column or ()),
        each_case or "",
        folder,
        form is Summary.MARKDOWN and not as_json,
    )
    raise typer.Exit(run_compare(job))
