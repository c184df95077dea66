"""Printing: rich on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

from medharden.record import Progress as ProgressCallback

__all__ = ["Output", "out", "report_error", "stage_progress"]

_SECONDS_BETWEEN_LINES = 60
_WIDTH_OF_FILES = 160


@dataclass
class Output:
    """How this process prints; set once by the command.

    Attributes:
        json: print one JSON object on standard output and nothing else.
        quiet: print the end result alone.
    """

    json: bool = False
    quiet: bool = False

    @property
    def terminal(self) -> bool:
        """Whether a person watches: bars and boxes there, plain unbroken lines elsewhere."""
        return sys.stdout.isatty()

    @cached_property
    def console(self) -> Console:
        """Standard output, with colour and width where it is a terminal; one for all, so that bars and lines mix."""
        width = None if self.terminal else _WIDTH_OF_FILES
        return Console(file=sys.stdout, highlight=False, soft_wrap=not self.terminal, width=width)

    def say(self, text: str) -> None:
        """One line for people, in rich markup."""
        if not self.json and not self.quiet:
            self.console.print(text)

    def show(self, renderable: Any, machine: dict[str, Any]) -> None:
        """The end result: a panel or table for people, one object for machines."""
        if self.json:
            sys.stdout.write(json.dumps(machine, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
        else:
            self.console.print(renderable)


out = Output()


def report_error(message: str, kind: str, exit_code: int) -> None:
    """One error, on standard error for people or as JSON on standard output for machines."""
    if out.json:
        sys.stdout.write(json.dumps({"error": message, "type": kind, "exit_code": exit_code}, indent=2) + "\n")
        return
    label = "[bold yellow]stopped[/]" if kind == "Interrupted" else "[bold red]error[/]"
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    console.print(f"{label}: {escape(message)}")


@contextmanager
def stage_progress() -> Iterator[ProgressCallback]:
    """A callback for long stages: bars with time left on a terminal, a line at each stage's end elsewhere."""
    if out.json or out.quiet:
        yield lambda stage, done, total: None
        return
    if not out.terminal:
        yield _PlainLines()
        return
    columns = (
        TextColumn("[bold]{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed ·"),
        TimeLeftColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=out.console) as bars:
        tasks: dict[str, TaskID] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield update


class _PlainLines:
    """A line when a stage ends, and one a minute with the time left while it runs."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, int]] = {}
        self._said = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        start, first = self._began.setdefault(stage, (now, done))
        if done < total and now - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = now
        left = (now - start) / (done - first) * (total - done) if done > first else 0.0
        rest = f", about {left:.0f} s left" if done < total else f" in {now - start:.0f} s"
        sys.stdout.write(f"{stage}: {done} of {total}{rest}\n")
        sys.stdout.flush()
