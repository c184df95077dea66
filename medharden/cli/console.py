"""Printing: rich on a terminal, plain lines elsewhere, JSON for machines.

All that is printed leaves here. Text is shown as letters, made safe by `neutral`; markup is made by `marked` alone.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
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
from rich.segment import Segment
from rich.text import Text

from medharden.record import Progress as ProgressCallback
from medharden.text import escaped_json, neutral, neutral_lines

__all__ = ["Output", "SafeConsole", "marked", "out", "report_error", "stage_progress", "warn", "widen_streams", "write"]

_SECONDS_BETWEEN_LINES = 60
_WIDTH_OF_FILES = 160


class SafeConsole(Console):
    """Shows every text as one line of letters: no markup, no control character, nothing that turns or hides letters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text before it is laid out, so that columns are as wide as what is shown."""
        return super().render_str(neutral(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever renders itself, such as a title; rich's own control sequences are segments of their own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=neutral_lines(segment.text))


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
        return SafeConsole(file=sys.stdout, soft_wrap=not self.terminal, width=width)

    def say(self, text: str | Text) -> None:
        """One line for people."""
        if not self.json and not self.quiet:
            self.console.print(text)

    def show(self, renderable: RenderableType | Iterable[RenderableType], machine: dict[str, Any]) -> None:
        """The end result: for people lines, a panel or tables, one object for machines."""
        if self.json:
            _write_json(machine)
        else:
            whole = Group(*renderable) if isinstance(renderable, (list, tuple)) else renderable
            self.console.print(whole)


out = Output()


def widen_streams() -> None:
    """Lets letters that a stream's encoding lacks stand as their code points: no outcome is lost for a name in it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def marked(template: str, *values: object) -> Text:
    """One line in rich's markup, such as `[bold]{}[/]`; what is filled in is text and never markup."""
    return Text.from_markup(template.format(*(escape(neutral(str(value))) for value in values)), emoji=False)


def write(text: str) -> None:
    """Lines that are formatted already, on standard output."""
    sys.stdout.write(neutral_lines(text))
    sys.stdout.flush()


def warn(text: str) -> None:
    """One line on standard error, where the outcome stands all the same."""
    sys.stderr.write(neutral(text) + "\n")


def report_error(message: str, kind: str, exit_code: int) -> None:
    """One error, on standard error for people or as JSON on standard output for machines."""
    if out.json:
        _write_json({"error": message, "type": kind, "exit_code": exit_code})
        return
    label = marked("[bold yellow]stopped[/]: " if kind == "Interrupted" else "[bold red]error[/]: ")
    SafeConsole(file=sys.stderr, soft_wrap=True).print(label.append(neutral_lines(message)))


def _write_json(machine: dict[str, Any]) -> None:
    sys.stdout.write(escaped_json(json.dumps(machine, allow_nan=False, indent=2)) + "\n")


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
        write(f"{stage}: {done} of {total}{rest}\n")


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
