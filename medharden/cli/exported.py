"""`medharden export`: the released model in another form, and what was written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import RenderableType

from medharden.cli.console import marked, out, warn
from medharden.errors import RunError
from medharden.exporting import export
from medharden.models import load_hardened

__all__ = ["run_export"]


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
