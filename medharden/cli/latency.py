"""`medharden bench RUN`: what an answer costs, in PyTorch and in each form that a run can be exported to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import RenderableType
from rich.table import Table

from medharden.cli.console import out, stage_progress
from medharden.exporting.timing import time_forms
from medharden.heap import keep_freed_memory
from medharden.models import load_hardened

__all__ = ["run_latency"]

_NAMES = {"original": "original", "robust_branch": "robust branch", "composite": "composite"}


def run_latency(run: Path, arch: str | None) -> None:
    """Times a run's models and prints; writes nothing."""
    model = load_hardened(run, arch=arch)
    keep_freed_memory()  # as docs/production.md has whoever deploys PyTorch on a CPU do
    with stage_progress() as progress:
        found = time_forms(model, progress=progress)
    table = Table("form", "model", "batch", "a pass", "cases a second", "times the original", "size")
    for timing in found:
        table.add_row(
            timing.form,
            _NAMES[timing.model],
            str(timing.batch),
            f"{1000 * timing.seconds:.2f} ms",
            f"{timing.rate:.1f}",
            f"{timing.ratio:.2f}",
            f"{timing.bytes / 1e6:.2f} MB",
        )
    threads = torch.get_num_threads()
    lines: list[RenderableType] = [table, f"on the CPU with {threads} threads; medians, the models taking turns"]
    out.show(lines, {"threads": threads, "timings": [asdict(t) | {"rate": t.rate} for t in found]})
