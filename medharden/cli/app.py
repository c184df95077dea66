"""The commands. `--help` imports no torch: verbs are imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medharden._version import __version__
from medharden.cli.choices import Format, Precision, Tracker
from medharden.cli.console import out, write
from medharden.cli.evidence import By, ByRole, Dicomweb, Independent, MaxDecoded, Seeds, TesterKey, evidence_app
from medharden.cli.examples import with_examples
from medharden.cli.local import local_app
from medharden.cli.released import released_app
from medharden.cli.ruled import protocol_app
from medharden.cli.usage import Commands
from medharden.links import set_followed
from medharden.sizes import MAX_DECODED

__all__ = ["app"]

app = typer.Typer(
    name="medharden",
    cls=Commands,
    help="Harden a diagnostic image classifier against adversarial manipulation, keep its clean path bit for bit, "
    "and gate the release on evidence.",
    epilog="Exit codes: 0 PASS or done · 1 error · 2 usage · 3 FAIL · 4 INCONCLUSIVE · 5 INVALID · 130 interrupted "
    "(run the same command again to go on).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(protocol_app, name="protocol")
app.add_typer(released_app)
app.add_typer(local_app)
app.add_typer(evidence_app)


_DATA, _MODEL, _RUN, _MACHINE, _OUTPUT = "Data", "Model", "Run", "Machine", "Output"  # groups of --help

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Checkpoint, state dict or MONAI bundle folder.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        rich_help_panel=_DATA,
        help="Folder with a sub-folder a class, manifest CSV (or its folder), .npz, or dicomweb+https://SERVER?QUERY.",
    ),
]
ProtocolOption = Annotated[
    str, typer.Option("--protocol", rich_help_panel=_RUN, help="Name of a shipped protocol, or path to a YAML file.")
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        rich_help_panel=_MODEL,
        help="timm:NAME, monai:NAME, or python:MODULE:CLASS (runs that code of yours).",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", rich_help_panel=_MACHINE, help="cpu, cuda, cuda:1, mps; auto takes CUDA, else MPS, else the CPU."
    ),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, rich_help_panel=_MACHINE, help="Cases a pass in evaluation.")
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, rich_help_panel=_DATA, help="Threads, or processes, that read files.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        rich_help_panel=_DATA,
        help="Folder that keeps decoded cases for later commands. It holds patient images.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", rich_help_panel=_DATA, help="Pseudonym key; default: your configuration folder."),
]
Pictures = Annotated[
    bool,
    typer.Option(
        "--pictures",
        rich_help_panel=_RUN,
        help="Put example images into the report. They are patient data.",
    ),
]
Required = Annotated[
    str | None,
    typer.Option("--protocol", help="Name, file or digest of the protocol that you require the run to be under."),
]
Ledger = Annotated[
    Path | None,
    typer.Option(
        "--ledger", rich_help_panel=_RUN, help="File that counts looks at test splits over several run directories."
    ),
]
Artefact = Annotated[
    Path | None, typer.Option("--artefact", help="ONNX file of an export, to do it with in the composite's place.")
]
Json = Annotated[bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=_OUTPUT, help="Print the end result alone.")]


def _version(value: bool) -> None:
    if value:
        write(f"medharden {__version__}\n")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links in the data that leave its folder; on record.")
    ] = False,
) -> None:
    set_followed(follow_links)


@app.command()
def harden(
    model: Model,
    data: Data,
    protocol: ProtocolOption = "default",
    out_dir: Annotated[Path, typer.Option("--out", rich_help_panel=_RUN, help="Run directory to write.")] = Path(
        "medharden-run"
    ),
    arch: Arch = None,
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = 2,
    max_decoded: MaxDecoded = MAX_DECODED,
    cache: Cache = None,
    dicomweb: Dicomweb = None,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(
            "--checkpoint-minutes",
            min=0.0,
            rich_help_panel=_RUN,
            help="Longest time between two checkpoints of training.",
        ),
    ] = 10.0,
    precision: Annotated[
        Precision, typer.Option("--precision", rich_help_panel=_MACHINE, help="Of the branch in training; else fp32.")
    ] = Precision.FP32,
    seeds: Seeds = 1,
    key_file: KeyFile = None,
    pictures: Pictures = False,
    ledger: Ledger = None,
    track: Annotated[
        Tracker | None,
        typer.Option("--track", rich_help_panel=_RUN, help="Tell a tracker what the run records, beside; no cases."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", rich_help_panel=_RUN, help="Say what would be done and what it would take; write nothing."
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Load, harden, evaluate, gate and report; the exit code is the gate's."""
    out.json, out.quiet = as_json, quiet
    from medharden.cli.pipeline import Job, run_all
    from medharden.cli.retrieving import with_series

    job = Job(
        model,
        data,
        protocol,
        out_dir,
        arch,
        device,
        batch_size,
        workers,
        key_file,
        pictures,
        ledger,
        max_decoded,
        cache,
        checkpoint_minutes,
        precision.value,
        track.value if track is not None else "",
        seeds,
    )
    if dry_run:
        from medharden.cli.benched import run_bench

        run_bench(job, protocol, dry=True, dicomweb=dicomweb)
        return
    with with_series(job, dicomweb, protocol) as job:
        raise typer.Exit(run_all(job))


@app.command()
def inspect(
    data: Data,
    model: Annotated[Path | None, typer.Argument(metavar="[MODEL]", help="Model to load too.")] = None,
    protocol: ProtocolOption = "default",
    arch: Arch = None,
    locate: Annotated[
        str | None, typer.Option("--locate", help="Print where the case of this pseudonym lies, and nothing else.")
    ] = None,
    parity: Annotated[
        int, typer.Option("--parity", metavar="N", min=0, help="Hold the team's own pipeline against ours on N files.")
    ] = 0,
    workers: Workers = 2,
    max_decoded: MaxDecoded = MAX_DECODED,
    cache: Cache = None,
    dicomweb: Dicomweb = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Show what would be loaded: model, classes, splits, shapes, value ranges, problems. Trains nothing."""
    out.json = as_json
    from medharden.cli.inspection import run_inspection, run_location

    if locate is not None:
        run_location(data, protocol, locate, max_decoded, key_file, cache, dicomweb)
        return
    raise typer.Exit(
        run_inspection(model, data, protocol, arch, workers, max_decoded, key_file, cache, parity, dicomweb)
    )


@app.command()
def evaluate(
    run: Run,
    data: Data,
    model: Annotated[
        Path | None, typer.Option("--model", help="The original file, to compare the clean path with bit for bit.")
    ] = None,
    arch: Arch = None,
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = 2,
    max_decoded: MaxDecoded = MAX_DECODED,
    cache: Cache = None,
    dicomweb: Dicomweb = None,
    key_file: KeyFile = None,
    pictures: Pictures = False,
    ledger: Ledger = None,
    artefact: Artefact = None,
    independent: Independent = False,
    by: By = None,
    role: ByRole = None,
    key: TesterKey = None,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="With --artefact or --independent: evaluate in a signed run.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Attack original, branch and release of a run on its test split, or an exported model; or test it again."""
    out.json, out.quiet = as_json, quiet
    from medharden.cli.pipeline import Job, run_evaluation
    from medharden.cli.retrieving import with_series

    job = Job(model, data, "", run, arch, device, batch_size, workers, key_file, pictures, ledger, max_decoded, cache)
    with with_series(job, dicomweb, run) as job:
        if artefact is not None:
            from medharden.cli.exported import run_artefact

            run_artefact(job, artefact, supersede)
        elif independent:
            from medharden.cli.independent import run_independent

            run_independent(job, by or "", role or "", key, supersede)
        else:
            run_evaluation(job)


@app.command()
def attack(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file or bundle folder, or a run directory.")],
    data: Data,
    write: Annotated[Path, typer.Option("--write", help="New or empty folder for images and records.")],
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="Name or path; default: the run's own, else `default`.")
    ] = None,
    arch: Arch = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    case: Annotated[
        list[str] | None, typer.Option("--case", help="Pseudonym of a case to attack; may be given again.")
    ] = None,
    device: Device = "auto",
    workers: Workers = 2,
    max_decoded: MaxDecoded = MAX_DECODED,
    cache: Cache = None,
    key_file: KeyFile = None,
    form: Annotated[Format, typer.Option("--format", help="How to print the outcome: text or json.")] = Format.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    quiet: Quiet = False,
) -> None:
    """Attack images in their files' own values, write them as files, and score the files."""
    if form is Format.MARKDOWN:
        raise typer.BadParameter("attack prints text or json", param_hint="--format")
    out.json, out.quiet = as_json or form is Format.JSON, quiet
    from medharden.cli.attacked import AttackJob, run_attack

    cases = tuple(case or ())
    run_attack(
        AttackJob(model, data, write, protocol, arch, split, cases, device, workers, key_file, max_decoded, cache)
    )


@app.command()
def gate(
    run: Run,
    protocol: Required = None,
    authorised: Annotated[
        Path | None,
        typer.Option("--authorised", help="Run directory of the last authorised release, to compare with too."),
    ] = None,
    ledger: Ledger = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Decide and write nothing: several may at once.")
    ] = False,
    artefact: Artefact = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; say whether the decision on record stands.")
    ] = False,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Decide over a signed state, whose signatures then are of the past.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="How to print the decision.")] = Format.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    quiet: Quiet = False,
) -> None:
    """Decide PASS, FAIL, INCONCLUSIVE or INVALID from a run's records; the exit code says which.

    On a signed run nothing is written: the decision is made anew and held against the signed one.
    """
    out.json, out.quiet = as_json or form is Format.JSON, quiet
    if supersede and (read_only or check):
        raise typer.BadParameter("it writes, and --read-only and --check write nothing", param_hint="--supersede")
    if artefact is not None and (check or authorised or ledger):
        raise typer.BadParameter("decides on the artefact alone", param_hint="--artefact")
    from medharden.cli.verdicts import GateJob, run_gate

    as_markdown = form is Format.MARKDOWN and not as_json
    job = GateJob(run, protocol, authorised, ledger, read_only, check, supersede, as_markdown, artefact)
    raise typer.Exit(run_gate(job))


@app.command()
def report(
    run: Run,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for the report; the run directory is then only read.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write report.html, report.pdf, model-card.md, report.json and gate.junit.xml from a run's records."""
    out.json = as_json
    from medharden.cli.verdicts import run_report

    run_report(run, folder)


@app.command()
def frontier(
    run: Run,
    target: Annotated[Path | None, typer.Option("--out", help="SVG, PNG or PDF; default: RUN/frontier.svg.")] = None,
    as_json: Json = False,
) -> None:
    """Draw clean change against robustness over the fusion weight, with the operating point."""
    out.json = as_json
    from medharden.cli.verdicts import run_frontier

    run_frontier(run, target)


@app.command()
def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("medharden-demo"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run everything on phantom CT slices that it makes itself; no download, no patients."""
    out.json, out.quiet = as_json, quiet
    from medharden.cli.demo import run_demo

    raise typer.Exit(run_demo(out_dir))


with_examples(app)
