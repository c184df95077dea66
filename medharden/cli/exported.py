"""`medharden export`: the released model in another form, and what was written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import RenderableType

from medharden import ranks
from medharden.audit import RunFiles
from medharden.cli.console import marked, out, stage_progress, warn
from medharden.cli.pipeline import Job, interruptible, load_data, prepare
from medharden.errors import RunError
from medharden.evaluating import evaluate_artefact
from medharden.exporting import export
from medharden.models import load_hardened, read_onnx

__all__ = ["run_artefact", "run_export"]


def run_export(run: Path, to: str, quantise: str, ungated: bool, supersede: bool, arch: str | None) -> None:
    """Exports and prints."""
    if not run.is_dir():
        raise RunError(f"{run.name} is no run directory; expected the folder that `medharden harden` wrote")
    path, record = export(
        load_hardened(run, arch=arch), run, to=to, quantise=quantise, ungated=ungated, supersede=supersede
    )
    for finding in record.findings:
        warn(finding.message)
    parity, size = record.parity, sum(p.stat().st_size for p in map(run.joinpath, record.files))
    lines: list[RenderableType] = [
        marked("[bold]{}[/], {} MB", path.relative_to(run).as_posix(), f"{size / 1e6:.2f}"),
        f"of weights with the verdict {record.verdict or 'none'}, sha256 {record.hardened[:12]}",
        f"against the composite: a logit differs by up to {parity.largest:.2g}, {parity.answers} of {parity.cases} "
        f"answers and {parity.referrals} referrals changed, on drawn inputs",
    ]
    out.show(lines, asdict(record) | {"path": str(path), "bytes": size})


def run_artefact(job: Job, artefact: Path, supersede: bool) -> None:
    """Evaluates an exported model on the run's test split."""
    if ranks.launched() > 1:
        raise RunError("an artefact is evaluated in one process; run the command without `accelerate launch`")
    if not (job.run / "evaluation.json").is_file():
        raise RunError(f"{job.run.name} was not evaluated; expected a run directory that `medharden harden` finished")
    model = read_onnx(artefact)
    job = prepare(job)
    with interruptible(job.run), stage_progress() as progress:
        protocol = RunFiles(job.run).protocol()
        record = evaluate_artefact(
            load_hardened(job.run, arch=job.arch),
            model,
            load_data(job, protocol, progress),
            protocol,
            job.run,
            batch_size=job.batch_size,
            device=job.device,
            supersede=supersede,
            progress=progress,
        )
    for finding in record.findings:
        if finding.code.startswith("artefact."):
            warn(finding.message)
    rows = {s.name: {"clean": s.clean_accuracy, "robust": s.robust_accuracy, "n": s.n} for s in record.subjects}
    lines: list[RenderableType] = [
        f"{name}: clean {r['clean']:.3f}, under attack {r['robust']:.3f}" for name, r in rows.items()
    ]
    lines.append(f"decide on it: medharden gate {job.run} --artefact {artefact}")
    out.show(lines, {"artefact": record.artefact, "subjects": rows})
