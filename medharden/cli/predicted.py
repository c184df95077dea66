"""`medharden predict`: what a released model says of files, for people, programs and tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from medharden.audit import RunFiles
from medharden.cli.console import out, warn, write
from medharden.cli.runtime import device_of
from medharden.errors import RunError
from medharden.exporting.standing import standing_of
from medharden.models import load_hardened
from medharden.predicting import Prediction, contract_of, predict

__all__ = ["PredictJob", "run_predict"]


@dataclass(frozen=True)
class PredictJob:
    """What `predict` was asked to do."""

    run: Path
    files: tuple[Path, ...]
    arch: str | None
    device: str
    max_decoded: int
    as_csv: bool


def run_predict(job: PredictJob) -> int:
    """Answers the files and prints; returns 1 where one was refused, else 0."""
    if not job.run.is_dir():
        raise RunError(f"{job.run.name} is no run directory; expected the folder that `medharden harden` wrote")
    model = load_hardened(job.run, arch=job.arch)
    contract = contract_of(model)
    standing = standing_of(RunFiles(job.run))
    if not standing.passed:
        warn(f"these answers are of a model without a PASS: {standing.lacking}")
    if job.as_csv or out.json:
        out.quiet = True  # the device's line is none of the table's
    said = tuple(predict(model, job.files, device=device_of(job.device), max_decoded=job.max_decoded))
    refused = [p for p in said if p.refused]
    if job.as_csv:
        write(_csv(said, contract.classes))
        for prediction in refused:
            warn(f"refused: {prediction.path} {prediction.refused}")
    else:
        machine = {
            "classes": list(contract.classes),
            "verdict": standing.verdict,
            "predictions": [_machine(p, contract.classes) for p in said],
        }
        out.show(_table(said, contract.classes), machine)
    return 1 if refused else 0


def _machine(prediction: Prediction, classes: tuple[str, ...]) -> dict[str, object]:
    fields = asdict(prediction)
    shares = dict(zip(classes, prediction.probabilities, strict=False))
    return fields | {"answer": list(prediction.answer), "notes": list(prediction.notes), "probabilities": shares}


def _table(said: Iterable[Prediction], classes: tuple[str, ...]) -> Table:
    table = Table("file", "answer", *classes, "referral", "notes")
    for p in said:
        shares = [f"{share:.4f}" for share in p.probabilities] or [""] * len(classes)
        answer = f"refused: {p.refused}" if p.refused else ", ".join(p.answer) or "none"
        table.add_row(p.path, answer, *shares, "look at it" if p.referred else "", "; ".join(p.notes))
    return table


def _csv(said: Iterable[Prediction], classes: tuple[str, ...]) -> str:
    """A row a file; of several findings the answer's are parted by `|`, as in a manifest."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "answer", *(f"probability:{name}" for name in classes), "referred", "notes", "refused"])
    for p in said:
        shares = [repr(share) for share in p.probabilities] or [""] * len(classes)
        referred = "" if p.refused else str(p.referred).lower()
        table.writerow([p.path, "|".join(p.answer), *shares, referred, "; ".join(p.notes), p.refused])
    return text.getvalue()
