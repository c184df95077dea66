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
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from medharden.record import Progress as ProgressCallback
from medharden.text import neutral

__all__ = ["Output", "literal", "out", "report_error", "stage_progress"]

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
            sys.stdout.write(json.dumps(machine, allow_nan=False, indent=2) + "\n")
        else:
            self.console.print(renderable)


out = Output()


def literal(text: str) -> str:
    """Text from a file of others for one line: no markup, and nothing that steers a terminal or turns its letters."""
    return escape(neutral(text))


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
        TextColumn("elapsed"),
        _TimeLeft(),
    )
    with Progress(*columns, console=out.console) as bars:
        tasks: dict[str, TaskID] = {}
        pace = _Pace()

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, ends=None)
            left = pace.left(stage, done, total)
            bars.update(
                tasks[stage], completed=done, total=total, ends=None if left is None else time.monotonic() + left
            )

        yield update


class _Pace:
    """Time left from a stage's whole pace, of which the total may change; with fewer steps done it starts anew."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, int]] = {}
        self._done: dict[str, int] = {}

    def left(self, stage: str, done: int, total: int) -> float | None:
        """Seconds; null where nothing was done since the stage was first heard of."""
        if done < self._done.get(stage, done + 1):
            self._began[stage] = (time.monotonic(), done)
        self._done[stage] = done
        start, first = self._began[stage]
        return (time.monotonic() - start) / (done - first) * (total - done) if done > first else None

    def taken(self, stage: str) -> float:
        """Seconds since the stage was first heard of."""
        return time.monotonic() - self._began[stage][0]


class _TimeLeft(ProgressColumn):
    """Counts down to the end that was foretold last: one batch of an attack may take minutes."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        if task.finished or ends is None:
            return Text("")
        return Text(f"· about {_spoken(max(0.0, ends - time.monotonic()))} left")


class _PlainLines:
    """A line when a stage ends, and one a minute with the time left while it runs."""

    def __init__(self) -> None:
        self._pace = _Pace()
        self._said = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        left = self._pace.left(stage, done, total)
        if done < total and time.monotonic() - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = time.monotonic()
        rest = "" if left is None else f", about {_spoken(left)} left"
        if done >= total:
            rest = f" in {_spoken(self._pace.taken(stage))}"
        sys.stdout.write(f"{stage}: {done} of {total}{rest}\n")
        sys.stdout.flush()


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
