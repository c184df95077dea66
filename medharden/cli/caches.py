"""`medharden cache`: the stores of decoded cases that `--cache` kept, listed and removed."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from medharden.cli.console import out
from medharden.data.store.cache import cached_views, remove_views
from medharden.sizes import shown_bytes

__all__ = ["run_cache_list", "run_cache_remove"]


def run_cache_list(folder: Path) -> None:
    """Prints each store: its name, cases, size, when it was written to last, and the input that it is for."""
    views = list(cached_views(folder))
    table = Table("store", "cases", "size", "last written", "input", box=None, padding=(0, 1))
    for view in views:
        changed = datetime.fromtimestamp(view.changed, tz=UTC).isoformat(timespec="minutes")
        table.add_row(view.name, str(view.cases), shown_bytes(view.bytes), changed, _in_words(view.input))
    total = shown_bytes(sum(view.bytes for view in views))
    lines: list[Table | str] = [table, f"{total} of decoded patient images; `medharden cache remove` removes them"]
    out.show(lines if views else ["the cache is empty"], {"stores": [asdict(view) for view in views]})


def run_cache_remove(folder: Path, names: tuple[str, ...]) -> None:
    """Removes stores, all where none is named."""
    removed = remove_views(folder, names)
    out.show(f"{removed} {'store' if removed == 1 else 'stores'} removed", {"removed": removed})


def _in_words(said: dict[str, Any]) -> str:
    if not said:
        return "series as they came from a DICOMweb server"
    intensity = said.get("intensity")
    mode = intensity.get("mode") if isinstance(intensity, dict) else None
    size = "x".join(map(str, said.get("size") or ())) or "native size"
    return f"{size}, {said.get('channels')}, {said.get('fit')}, {mode}"
