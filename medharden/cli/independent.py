"""`medharden evaluate --independent`: another person's test of a release, signed, and what came of it."""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType

from medharden import ranks
from medharden.audit import RunFiles
from medharden.audit.independent import place_of
from medharden.audit.keys import load_signing_key
from medharden.cli.console import marked, out, stage_progress, warn
from medharden.cli.pipeline import Job, interruptible, load_data, load_original, prepare, require_sources
from medharden.cli.verification import passphrase_of
from medharden.errors import KeyFileError, RunError
from medharden.evaluating import evaluate_independent
from medharden.models import load_hardened

__all__ = ["run_independent"]


def run_independent(job: Job, by: str, role: str, key_file: Path | None, supersede: bool) -> None:
    """Tests a release again and prints what was seen beside the run's own evaluation.

    Raises:
        RunError: who tests, the key or the original's file is not given, or the run was not evaluated.
        KeyFileError: the key can't be read, or lies in the run directory.
    """
    if ranks.launched() > 1:
        raise RunError("an independent test runs in one process; run the command without `accelerate launch`")
    lacking = [
        option
        for option, given in (("--by", by), ("--role", role), ("--key", key_file), ("--model", job.model))
        if not given
    ]
    if lacking or key_file is None:
        raise RunError(
            f"an independent test lacks {', '.join(lacking)}: it names who tests and as what, is signed with the "
            "tester's own key (`medharden keygen`), and compares the clean path with the original's file"
        )
    if not (job.run / "evaluation.json").is_file():
        raise RunError(f"{job.run.name} was not evaluated; expected a run directory that `medharden harden` finished")
    if key_file.resolve().is_relative_to(job.run.resolve()):
        raise KeyFileError("the private key lies in the run directory, which is for sharing; keep it elsewhere")
    key = load_signing_key(key_file, passphrase_of(key_file))
    require_sources(job)
    job = prepare(job)
    with interruptible(job.run), stage_progress() as progress:
        protocol = RunFiles(job.run).protocol()
        record = evaluate_independent(
            load_hardened(job.run, arch=job.arch),
            load_data(job, protocol, progress),
            protocol,
            job.run,
            name=by,
            role=role,
            key=key,
            original=load_original(job, protocol),
            batch_size=job.batch_size,
            device=job.device,
            supersede=supersede,
            progress=progress,
        )
    for finding in record.findings:
        if finding.severity != "info":
            warn(finding.message)
    rows = {s.name: {"clean": s.clean_accuracy, "robust": s.robust_accuracy, "n": s.n} for s in record.subjects}
    lines: list[RenderableType] = [
        f"{name}: clean {r['clean']:.3f}, under attack {r['robust']:.3f}" for name, r in rows.items()
    ]
    place = place_of(key.public.key_id)
    lines.append(marked("tested by {}, {}; signed, in {}", by, role, place))
    lines.append(f"take it into the verdict: medharden gate {job.run}")
    out.show(lines, {"subjects": rows, "place": place, "key": key.public.key_id})
