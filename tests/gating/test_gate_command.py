"""The gate in a build: formats, the step summary, and the CI files that the documentation offers."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command import assert_clear, medharden
from gating_changes import counted, evaluated, grouped, hardened
from gating_factory import Records, protocol, records, write_run

from medharden.cli.console import Output
from medharden.cli.verdicts import show_verdict
from medharden.gating import gate
from medharden.record import Endpoint, Finding, GateDecision, Verdict
from medharden.reporting import markdown_summary
from medharden.reporting.limits import endpoint_numbers
from medharden.stats import cases_needed, power_to_show, smallest_margin


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    write_run(path, grouped("sex", 3)(records(rules=protocol(columns=("sex",)), lost=7)))
    return path


@pytest.mark.parametrize("option", [("--json",), ("--format", "json"), ("--json", "--format", "markdown")])
def test_json_is_one_object_under_either_name(run: Path, option: tuple[str, ...]) -> None:
    result = medharden("gate", run, *option, cwd=run)
    assert result.returncode == 4
    shown = json.loads(result.stdout)
    assert (shown["verdict"], shown["exit_code"]) == ("INCONCLUSIVE", 4)
    sizes = {g["name"]: g["n"] for g in shown["subgroups"]}
    assert (sizes["sex=A"], sizes["sex=rest"]) == (3, 397)
    assert sizes["sex=rest:sensitivity"] + sizes["sex=rest:specificity"] == 397


def test_what_the_cases_can_show_is_printed_before_the_verdict(run: Path) -> None:
    text = medharden("gate", run, cwd=run).stdout
    heads = ["n", "gained, lost", "can show", "needed", "power", "verdict"]
    assert [text.index(head) for head in heads] == sorted(text.index(head) for head in heads)
    row = next(line for line in text.splitlines() if line.split()[:1] == ["accuracy"])
    assert row.split()[-10:-1] == ["−2.0", "pp", "400", "0,", "7", "±2.2", "pp", "509", "0.71"]
    assert text.index("accuracy") < text.index("\nINCONCLUSIVE · toy")
    shown = json.loads(medharden("gate", run, "--json", cwd=run).stdout)
    accuracy = next(e for e in shown["endpoints"] if e["name"] == "accuracy")
    assert (accuracy["n"], accuracy["patients"], accuracy["table"]) == (400, 400, [373, 0, 7, 20])
    assert (accuracy["smallest_margin"], accuracy["needed"], accuracy["power"]) == (
        smallest_margin(400, 7 / 400, alpha=0.025),
        cases_needed(7 / 400, 0.02, alpha=0.025),
        power_to_show(400, 7 / 400, 0.02, alpha=0.025),
    )
    assert (accuracy["level"], accuracy["limit"]) == (0.95, -0.02)


def test_on_a_terminal_too_the_numbers_come_before_the_verdict(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Output, "terminal", True)
    shown = Output()
    monkeypatch.setattr("medharden.cli.verdicts.out", shown)
    monkeypatch.setattr("medharden.cli.decided.out", shown)
    monkeypatch.setenv("COLUMNS", "150")
    show_verdict(run, gate(run))
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert "INCONCLUSIVE" not in lines[0]
    assert "the run's own" in lines[1]
    assert "can show" in lines[2]
    assert "INCONCLUSIVE · toy" in lines[-1]


@pytest.mark.parametrize("columns", [80, 120])
def test_no_number_that_decides_is_cut_on_a_terminal_of_80_columns(
    columns: int, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Output, "terminal", True)
    shown = Output()
    monkeypatch.setattr("medharden.cli.verdicts.out", shown)
    monkeypatch.setattr("medharden.cli.decided.out", shown)
    monkeypatch.setenv("COLUMNS", str(columns))
    decision = gate(run)
    show_verdict(run, decision)
    text = capsys.readouterr().out
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= columns
    for endpoint in decision.endpoints:
        row = next(line for line in text.splitlines() if line.startswith(f"│ {endpoint.name}"))
        assert all(number in row for number in (*endpoint_numbers(endpoint), str(endpoint.verdict)))


def test_the_quiet_get_the_verdict_and_the_gravest_reason_alone(run: Path) -> None:
    result = medharden("gate", run, "--quiet", cwd=run)
    assert result.returncode == 4
    assert result.stdout.startswith("INCONCLUSIVE · toy: accuracy: lower 95 % limit")
    assert len(result.stdout.splitlines()) == 1


def test_each_reason_says_what_to_do_and_the_last_line_whether_the_release_may_go_out(run: Path) -> None:
    text = medharden("gate", run, cwd=run).stdout
    reason = text.index("· accuracy: lower 95 % limit")
    assert reason < text.index("to do: Take about 509 such cases, 109 more than the 400 at hand")
    assert text.index("The release must not go out on this evidence") < text.index("\nINCONCLUSIVE · toy")
    done = json.loads(medharden("gate", run, "--json", cwd=run).stdout)["to_do"]
    assert done[0]["code"] == "endpoint.noninferiority"


@pytest.mark.parametrize(
    "made",
    [
        records(rules=protocol(sample=100), attacked=0),
        counted("original", n=0)(records()),
        hardened(cost=replace(records().harden.cost, clean_epoch_seconds=0.0))(evaluated(split="val")(records())),
    ],
    ids=["none attacked", "no case", "no clean epoch timed"],
)
def test_records_without_what_shares_are_of_are_invalid_and_no_defect(made: Records, tmp_path: Path) -> None:
    write_run(tmp_path, made)
    result = medharden("gate", tmp_path, "--json", cwd=tmp_path)
    assert_clear(result, 5, "INVALID")
    assert json.loads(result.stdout)["exit_code"] == 5
    assert "INVALID · toy" in medharden("gate", tmp_path, cwd=tmp_path).stdout


def test_markdown_goes_to_standard_output_and_to_the_step_summary(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    page.write_text("# before\n")
    result = medharden("gate", run, "--format", "markdown", cwd=run, GITHUB_STEP_SUMMARY=str(page))
    assert result.returncode == 4
    assert result.stdout.startswith("## medharden gate: INCONCLUSIVE\n")
    assert "| accuracy | INCONCLUSIVE | −1.8 pp |" in result.stdout
    assert "### What to do\n\n- Take about 509 such cases, 109 more than the 400 at hand" in result.stdout
    assert "The release must not go out on this evidence" in result.stdout
    assert "| sex=A | INCONCLUSIVE |" in result.stdout
    assert page.read_text() == "# before\n" + result.stdout


def test_the_step_summary_is_appended_whatever_is_printed(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    assert medharden("gate", run, "--json", cwd=run, GITHUB_STEP_SUMMARY=str(page)).returncode == 4
    assert page.read_text().count("## medharden gate: INCONCLUSIVE") == 1


def test_a_summary_that_can_not_be_written_leaves_the_verdict_and_its_exit_code(run: Path, tmp_path: Path) -> None:
    result = medharden("gate", run, cwd=run, GITHUB_STEP_SUMMARY=str(tmp_path / "absent" / "summary.md"))
    assert_clear(result, 4, "INCONCLUSIVE", "the step summary could not be written")


def test_the_command_imports_no_torch(run: Path) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['medharden', 'gate', {str(run)!r}, '--quiet']\n"
        "from medharden.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert done.code == 4, done.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


def test_the_command_takes_less_than_two_seconds_on_5000_cases_with_every_score(tmp_path: Path) -> None:
    rules = protocol(more=(("balanced_accuracy", 0.03), ("auroc", 0.02), ("brier", 0.02)))
    write_run(tmp_path, records(5000, rules=rules, gained=40, lost=40, cases_a_patient=2))
    seconds = []
    for _ in range(2):  # the better of two, in time of the processor: the machine may be busy
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert_clear(medharden("gate", tmp_path, cwd=tmp_path, fresh=True), 0, "PASS")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 2.0


def test_names_from_outside_are_no_markup() -> None:
    decision = records().decide()
    endpoint: Endpoint = replace(decision.endpoints[1], name="recall:a|b <img>\n`x`[y](z)")
    made: GateDecision = replace(
        decision,
        endpoints=(endpoint,),
        reasons=("<script>",),
        findings=(Finding("data.x", "warning", "a\nb"),),
        verdict=Verdict.FAIL,
    )
    text = markdown_summary(made)
    assert "<" not in text
    row = next(line for line in text.splitlines() if line.startswith("| recall"))
    assert row.count("|") == 12
    assert "`" not in row
    assert "[y]" not in text
    assert "- warning, data.x: a b" in text
