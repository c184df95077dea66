"""Printing: rich on a terminal, plain lines elsewhere, JSON for machines.

All that is printed leaves here. Text is shown as letters, made safe by `neutral`; markup is made by `marked` alone.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.segment import Segment
from rich.text import Text

from medharden.text import escaped_json, neutral, neutral_lines

__all__ = [
    "Output",
    "SafeConsole",
    "Stages",
    "announce",
    "marked",
    "out",
    "report_error",
    "spoken",
    "stage_progress",
    "warn",
    "widen_streams",
    "write",
]

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


class Stages:
    """A callback for long stages that says nothing: what machines and the quiet get."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Steps done of a stage, and in all; with the total 1 it is a stage without steps, which begins and ends."""

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Which stages come, in order, and how long each is expected to take."""


@contextmanager
def stage_progress() -> Iterator[Stages]:
    """A callback for long stages: bars with time left on a terminal, a line at each stage's end elsewhere."""
    if out.json or out.quiet:
        yield Stages()
        return
    if not out.terminal:
        yield _PlainLines()
        return
    columns = (TextColumn("[bold]{task.description:<16}"), BarColumn(), _Share(), _Taken(), _TimeLeft())
    with Progress(*columns, console=out.console) as bars:
        yield _Bars(bars)


def announce(seconds: Mapping[str, float]) -> str:
    """One line: which stages come, and how long each takes on what was measured."""
    parts = ", ".join(f"{stage} {spoken(taken)}" for stage, taken in seconds.items())
    return f"stages, at most about: {parts}; in all {spoken(sum(seconds.values()))}"


class _Bars(Stages):
    """A bar a stage, and one for the whole run where it is known what comes."""

    def __init__(self, bars: Progress) -> None:
        self._bars, self._pace = bars, _Pace()
        self._tasks: dict[str, TaskID] = {}
        self._expected: dict[str, float] = {}
        self._over: set[str] = set()
        self._whole: TaskID | None = None

    def expect(self, seconds: Mapping[str, float]) -> None:
        self._expected = dict(seconds)

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, ends=None)
        left = self._pace.left(stage, done, total)
        if left is None and stage in self._expected and done < total:
            left = self._expected[stage]
        ends = None if left is None else time.monotonic() + left
        self._bars.update(self._tasks[stage], completed=done, total=total, ends=ends)
        if done >= total:
            self._over.add(stage)
        if self._expected:
            self._show_whole(stage, left or 0.0)

    def _show_whole(self, stage: str, left: float) -> None:
        """The run's own bar: what this stage has left, and what those have that did not begin."""
        ahead = sum(s for name, s in self._expected.items() if name not in self._tasks)
        rest = ahead + (0.0 if stage in self._over else left)
        gone = sum(self._pace.taken(name) for name in self._tasks if name in self._expected)
        if self._whole is None:
            self._whole = self._bars.add_task("whole run", total=1.0, ends=None)
        self._bars.update(
            self._whole, completed=gone, total=max(gone + rest, 1e-9), ends=time.monotonic() + rest if rest else None
        )


class _Pace:
    """Time left from a stage's whole pace, of which the total may change; with fewer steps done it starts anew.

    A stage that says again how much was done at first has only now got ready, and its pace counts from there.
    """

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._ready: dict[str, tuple[float, int]] = {}
        self._done: dict[str, int] = {}

    def left(self, stage: str, done: int, total: int) -> float | None:
        """Seconds; null where nothing was done since the stage was ready."""
        now = time.monotonic()
        if done < self._done.get(stage, done + 1):
            self._began[stage], self._ready[stage] = now, (now, done)
        if done == self._ready[stage][1]:
            self._ready[stage] = (now, done)
        self._done[stage] = done
        start, first = self._ready[stage]
        return (now - start) / (done - first) * (total - done) if done > first else None

    def taken(self, stage: str) -> float:
        """Seconds since the stage was first heard of."""
        return time.monotonic() - self._began[stage]


class _Share(ProgressColumn):
    """How much is done, in per cent."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.percentage:>3.0f} %")


class _Taken(ProgressColumn):
    """Time since a stage began, with its unit."""

    def render(self, task: Task) -> Text:
        return Text(f"{spoken((task.finished_time if task.finished else task.elapsed) or 0.0):>6}")


class _TimeLeft(ProgressColumn):
    """Counts down to the end that was foretold last, and says so where it is over: a batch may take minutes."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        if task.finished or ends is None:
            return Text("")
        left = ends - time.monotonic()
        return Text(f"· about {spoken(left)} left" if left >= 1.0 else "· longer than foretold" if left < -2.0 else "")


class _PlainLines(Stages):
    """A line when a stage ends, and one a minute with the time left while it runs."""

    def __init__(self) -> None:
        self._pace = _Pace()
        self._said = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        left = self._pace.left(stage, done, total)
        if done < total and time.monotonic() - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = time.monotonic()
        rest = "" if left is None else f", about {spoken(left)} left"
        if done >= total:
            rest = f" in {spoken(self._pace.taken(stage))}"
        write(f"{stage}: {'done' if total == 1 else f'{done} of {total}'}{rest}\n")


def spoken(seconds: float) -> str:
    """A time with its unit: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
