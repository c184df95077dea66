"""What long stages say of the time left, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medharden.cli import console
from medharden.cli.console import Output, announce, stage_progress


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


def test_what_a_stage_does_before_its_first_step_is_not_its_pace(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage_progress() as progress:
        for clock.now, done in ((1000, 0), (1070, 0), (1074, 1), (1131, 4), (1151, 10)):
            progress("harden", done, 10)
    said = "harden: 0 of 10\nharden: 4 of 10, about 92 s left\nharden: 10 of 10 in 3 min\n"
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
    assert "67 %" in shown.getvalue()
    assert "about 100 s left" in shown.getvalue()


def test_the_whole_run_has_a_bar_of_its_own_that_counts_stages_that_did_not_begin(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(Output, "terminal", True)
    monkeypatch.setattr(console, "out", Output())
    console.out.console = Console(file=shown, force_terminal=True, width=80, color_system=None)
    with stage_progress() as progress:
        progress.expect({"harden": 100, "calibrate": 30, "attack release": 40})
        progress("harden", 0, 10)
        clock.now += 40
        progress("harden", 5, 10)
    assert "whole run" in shown.getvalue()
    assert "· about 110 s left" in shown.getvalue()
    assert "· about 40 s left" in shown.getvalue()


def test_a_stage_without_steps_is_said_to_be_done(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with stage_progress() as progress:
        progress("report", 0, 1)
        clock.now += 7
        progress("report", 1, 1)
    assert capsys.readouterr().out == "report: done in 7 s\n"


def test_what_comes_is_said_with_units() -> None:
    said = announce({"harden": 7300.0, "calibrate": 130.0, "report": 8.0})
    assert said == "stages, at most about: harden 2.0 h, calibrate 2 min, report 8 s; in all 2.1 h"


@pytest.mark.parametrize("quiet", [Output(json=True), Output(quiet=True)])
def test_machines_and_the_quiet_get_none_of_it(
    quiet: Output, clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "out", quiet)
    with stage_progress() as progress:
        clock.now += 100
        progress("attack", 1, 1)
    assert capsys.readouterr().out == ""
