"""What long stages say of the time left, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medharden.cli import console
from medharden.cli.console import Output, stage_progress


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hand = Clock()
    monkeypatch.setattr(console.time, "monotonic", hand)
    return hand


def test_a_log_gets_a_line_a_minute_with_the_time_left_and_one_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage_progress() as progress:
        for clock.now, done, total in ((1000, 0, 100), (1030, 10, 100), (1090, 30, 90), (1210, 90, 90)):
            progress("attack", done, total)
    assert capsys.readouterr().out == "attack: 30 of 90, about 3 min left\nattack: 90 of 90 in 4 min\n"


def test_no_time_left_is_made_up_where_a_stage_is_first_heard_of_after_its_first_step(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage_progress() as progress:
        clock.now += 100
        progress("attack", 10, 100)
        clock.now += 100
        progress("attack", 20, 100)
    assert capsys.readouterr().out == "attack: 10 of 100\nattack: 20 of 100, about 13 min left\n"


def test_a_stage_that_starts_again_is_timed_anew(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with stage_progress() as progress:
        for clock.now, done in ((1000, 0), (1100, 10), (5000, 1), (5100, 6), (5190, 10)):
            progress("harden", done, 10)
    said = "harden: 10 of 10 in 100 s\nharden: 1 of 10\nharden: 6 of 10, about 80 s left\nharden: 10 of 10 in 3 min\n"
    assert capsys.readouterr().out == said


def test_a_terminal_shows_the_time_left_though_steps_take_minutes_and_the_total_falls(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(Output, "terminal", True)
    monkeypatch.setattr(console, "out", Output())
    console.out.console = Console(file=shown, force_terminal=True, width=120, color_system=None)
    with stage_progress() as progress:
        for clock.now, done, total in ((1000, 0, 400), (1100, 100, 400), (1200, 200, 300)):
            progress("attack", done, total)
    assert "200/300" in shown.getvalue()
    assert "about 100 s left" in shown.getvalue()


@pytest.mark.parametrize("quiet", [Output(json=True), Output(quiet=True)])
def test_machines_and_the_quiet_get_none_of_it(
    quiet: Output, clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "out", quiet)
    with stage_progress() as progress:
        clock.now += 100
        progress("attack", 1, 1)
    assert capsys.readouterr().out == ""
