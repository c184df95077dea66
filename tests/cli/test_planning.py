"""What a number of cases can show, before any of them is answered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import assert_clear, medharden
from gating_factory import protocol
from PIL import Image
from tiny import EACH_CASE, PROTOCOL, write_archive

from medharden.errors import RangeError
from medharden.planning import plan
from medharden.protocol import Protocol
from medharden.stats import cases_needed, joint_power, power_to_show, smallest_margin, tango_statistic


def test_each_endpoint_has_its_needed_cases_smallest_margin_and_power() -> None:
    planned = plan(protocol(), {"NORMAL": 300, "PNEUMONIA": 200}, cases=500, discordance=0.05)
    accuracy, specificity, sensitivity = planned.rows
    assert (accuracy.endpoint, specificity.endpoint, sensitivity.endpoint) == (
        "accuracy",
        "specificity (NORMAL)",
        "sensitivity (PNEUMONIA)",
    )
    assert (accuracy.needed, sensitivity.needed) == (1067, 215)
    assert (accuracy.cases, specificity.cases, sensitivity.cases) == (500, 300, 200)
    assert accuracy.smallest_margin == pytest.approx(0.030, abs=5e-4)
    assert sensitivity.smallest_margin == pytest.approx(0.051, abs=5e-4)
    assert accuracy.power == power_to_show(500, 0.05, 0.02, alpha=0.025) < 0.5
    assert planned.unplanned == ("brier",)


def test_without_counts_only_what_is_needed_is_said() -> None:
    rows = plan(protocol(more=(("brier", 0.02),)), {}, cases=None, discordance=0.01)
    assert [(r.endpoint, r.needed, r.cases, r.power) for r in rows.rows] == [
        ("accuracy", 390, None, None),
        ("recall of each class", 114, None, None),
    ]
    assert rows.unplanned == ("brier",)


def test_several_classes_are_planned_by_name() -> None:
    rows = plan(protocol(positive=None), {"A": 10, "B": 20, "C": 30}, cases=60, discordance=0.0).rows
    assert [r.endpoint for r in rows] == ["accuracy", "recall A", "recall B", "recall C"]


def test_classes_of_more_cases_than_there_are_are_refused() -> None:
    with pytest.raises(RangeError, match="got 30"):
        plan(protocol(), {"A": 10, "B": 20}, cases=29, discordance=0.05)


@pytest.mark.parametrize("discordance", [0.0, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("cases", [50, 200, 4999, 5001])
def test_power_reaches_80_percent_exactly_at_the_smallest_margin(cases: int, discordance: float) -> None:
    margin = smallest_margin(cases, discordance, alpha=0.025)
    assert power_to_show(cases, discordance, margin * 1.001, alpha=0.025) >= 0.8 - 1e-6
    assert power_to_show(cases, discordance, margin * 0.999, alpha=0.025) <= 0.8 + 2e-3


def test_the_power_agrees_with_a_simulation() -> None:
    rng = np.random.default_rng(0)
    tables = rng.multinomial(300, [0.03, 0.03, 0.94], size=4000)
    shown = np.mean([tango_statistic(b, c, 300, -0.04) > 1.959964 for b, c, _ in tables])
    assert power_to_show(300, 0.06, 0.04, alpha=0.025) == pytest.approx(shown, abs=0.025)


def test_no_cases_show_nothing_and_odd_arguments_are_refused() -> None:
    assert power_to_show(0, 0.1, 0.05, alpha=0.025) == 0.0
    for odd in ((-1, 0.1, 0.05), (10, 1.2, 0.05), (10, 0.1, 0.0), (10, 0.1, 1.0)):
        with pytest.raises(RangeError):
            power_to_show(*odd, alpha=0.025)


def test_the_command_plans_from_numbers_and_from_a_cohort(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(PROTOCOL)
    write_archive(tmp_path / "tiny.npz")
    numbers = medharden("protocol", "plan", "tiny.yaml", "--cases", 120, "--positives", 60, "--json", cwd=tmp_path)
    counted = medharden("protocol", "plan", "tiny.yaml", "--data", "tiny.npz", "--json", cwd=tmp_path)
    one, two = (json.loads(r.stdout)["endpoints"] for r in (numbers, counted))
    assert [r["cases"] for r in one] == [r["cases"] for r in two] == [120, 60, 60]
    assert [r["power"] for r in one] == [r["power"] for r in two]
    shown = medharden("protocol", "plan", "tiny.yaml", "--data", "tiny.npz", "--discordance", 0.1, cwd=tmp_path)
    assert_clear(shown, 0, "cases needed", "2005", "the test split has 120 cases of 120 patients")


def test_cases_of_few_patients_are_planned_by_patient_too(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(PROTOCOL)
    images = tmp_path / "images"
    rows = ["path,label,patient,split"]
    for split, patients in (("train", 4), ("val", 4), ("test", 20)):
        for number in range(3 * patients):
            name, patient = f"{split}{number}.png", number // 3
            pixels = np.random.default_rng([len(split), number]).integers(0, 255, (16, 16), dtype=np.uint8)
            images.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(images / name)
            rows.append(f"{name},{'ab'[patient % 2]},{split}-{patient},{split}")
    (images / "manifest.csv").write_text("\n".join(rows) + "\n")
    shown = json.loads(medharden("protocol", "plan", "tiny.yaml", "--data", images, "--json", cwd=tmp_path).stdout)
    assert [r["cases"] for r in shown["endpoints"]] == [60, 30, 30]
    assert shown["notes"][:2] == [
        "the test split has 60 cases of 20 patients",
        f"should each patient tell no more than one case, accuracy can show "
        f"{100 * smallest_margin(20, 0.05, alpha=0.025):.1f} points, and the protocol's margin with power "
        f"{power_to_show(20, 0.05, 0.02, alpha=0.025):.2f}",
    ]


def test_copies_are_planned_once_and_nameless_cases_are_told(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(PROTOCOL.replace(EACH_CASE, ""))
    archive = write_archive(tmp_path / "tiny.npz")
    with np.load(archive) as arrays:
        changed = dict(arrays)
    for copy in range(2, 22, 2):
        changed["test_images"][copy] = changed["test_images"][0]
    changed["test_images"][3] = changed["test_images"][1]
    changed["test_images"][3, 0, 0] ^= 1
    np.savez(archive, **changed)
    shown = json.loads(medharden("protocol", "plan", "tiny.yaml", "--data", "tiny.npz", "--json", cwd=tmp_path).stdout)
    assert [r["cases"] for r in shown["endpoints"]] == [110, 50, 60]
    assert shown["notes"][:2] == [
        "the test split has 120 cases of 110 patients",
        "13 of them are copies, which count once: 109 units are left",
    ]
    assert any("INCONCLUSIVE at best" in note for note in shown["notes"])
    seen = medharden("inspect", "--data", "tiny.npz", "--protocol", "tiny.yaml", cwd=tmp_path)
    assert_clear(seen, 0, "units (copies count once)", "109")
    told = json.loads(
        medharden("inspect", "--data", "tiny.npz", "--protocol", "tiny.yaml", "--json", cwd=tmp_path).stdout
    )
    assert (told["unnamed"], told["test_units"]) == (400, 109)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--positives", 5), "--positives 5 needs --cases"),
        (("--cases", 4, "--positives", 5), "--positives 5 needs --cases"),
        (("--cases", 4, "--data", "x.npz"), "--data counts the cases itself"),
    ],
)
def test_numbers_that_contradict_each_other_are_an_error(tmp_path: Path, arguments: tuple[object], words: str) -> None:
    assert_clear(medharden("protocol", "plan", "default", *arguments, cwd=tmp_path), 1, words)


# --- with a loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "power"), [(0.0, 0.81), (0.005, 0.56), (0.01, 0.29)])
def test_a_true_loss_leaves_less_power_than_none(loss: float, power: float) -> None:
    """1067 cases are planned for a power of .80 at 5 % discordance and no loss: what a loss leaves of it."""
    [accuracy, _] = plan(protocol(), {}, cases=1067, discordance=0.05, loss=loss).rows
    assert accuracy.power == pytest.approx(power, abs=0.005)
    assert accuracy.needed is not None
    assert accuracy.needed >= 1067


@pytest.mark.parametrize(("cases", "loss"), [(400, 0.01), (1067, 0.005), (150, 0.03)])
def test_the_power_under_a_loss_is_what_simulation_shows(cases: int, loss: float) -> None:
    psi, margin = 0.06, 0.05
    drawn = np.random.default_rng(8).multinomial(cases, [(psi - loss) / 2, (psi + loss) / 2, 1 - psi], 2000)
    z = 1.959964
    shown = np.mean([tango_statistic(int(b), int(c), cases, -margin) > z for b, c, _ in drawn])
    assert power_to_show(cases, psi, margin, alpha=0.025, loss=loss) == pytest.approx(shown, abs=0.035)


def test_at_the_margin_itself_the_power_is_the_error_that_is_allowed() -> None:
    assert power_to_show(2000, 0.1, 0.03, alpha=0.025, loss=0.03) == pytest.approx(0.025, abs=0.004)
    assert power_to_show(6000, 0.1, 0.03, alpha=0.025, loss=0.03) == pytest.approx(0.025, abs=0.004)


def test_the_smallest_margin_and_the_needed_cases_grow_with_the_loss() -> None:
    margins = [smallest_margin(1000, 0.05, alpha=0.025, loss=loss) for loss in (0.0, 0.01, 0.02)]
    assert margins[0] + 0.009 < margins[1] < margins[2]
    needed = cases_needed(0.05, 0.02, alpha=0.025, loss=0.005)
    assert power_to_show(needed, 0.05, 0.02, alpha=0.025, loss=0.005) == pytest.approx(0.8, abs=0.01)
    large = [smallest_margin(n, 0.05, alpha=0.025, loss=0.01) for n in (5000, 5001)]
    assert large[0] == pytest.approx(large[1], abs=2e-4)


def test_a_loss_that_uses_up_a_margin_can_be_shown_by_no_cases() -> None:
    accuracy, recall = plan(protocol(), {}, cases=10_000, discordance=0.05, loss=0.03).rows
    assert (accuracy.needed, accuracy.power) == (None, pytest.approx(0.0, abs=1e-6))
    assert recall.needed is not None


@pytest.mark.parametrize("loss", [-0.01, 0.06, 1.0, float("nan")])
def test_a_loss_beyond_the_discordance_is_refused(loss: float) -> None:
    for call in (
        lambda: plan(protocol(), {}, cases=100, discordance=0.05, loss=loss),
        lambda: power_to_show(100, 0.05, 0.1, alpha=0.025, loss=loss),
        lambda: joint_power([(100, 0.1)], None, 0.05, alpha=0.025, loss=loss),
    ):
        with pytest.raises(RangeError, match="expected loss"):
            call()


# --- all endpoints together -------------------------------------------------------------------------------------------


def test_all_endpoints_together_have_less_power_than_each_and_no_less_than_bonferroni_s() -> None:
    planned = plan(protocol(), {"NORMAL": 600, "PNEUMONIA": 467}, cases=1067, discordance=0.05, loss=0.005)
    powers = [row.power for row in planned.rows if row.power is not None]
    assert planned.joint is not None
    assert planned.joint_least is not None
    assert planned.joint_least == pytest.approx(max(0.0, 1 - sum(1 - p for p in powers)))
    assert planned.joint_least - 0.01 <= planned.joint <= min(powers) + 0.01
    assert planned.joint > np.prod(powers) + 0.01, "accuracy and recall are of the same cases"


def test_of_one_endpoint_alone_the_joint_power_is_its_own() -> None:
    for loss in (0.0, 0.01):
        alone = power_to_show(700, 0.05, 0.03, alpha=0.0125, loss=loss)
        assert joint_power([(700, 0.03)], None, 0.05, alpha=0.0125, loss=loss) == pytest.approx(alone, abs=0.012)
        assert joint_power([(700, 0.03)], 0.03, 0.05, alpha=0.0125, loss=loss) == pytest.approx(alone, abs=0.012)
    apart = joint_power([(300, 0.05), (300, 0.05)], None, 0.05, alpha=0.025)
    assert apart == pytest.approx(power_to_show(300, 0.05, 0.05, alpha=0.025) ** 2, abs=0.012)
    assert joint_power([(0, 0.05), (300, 0.05)], None, 0.05, alpha=0.025) == 0.0


def test_without_the_cases_of_each_class_no_joint_power_is_said() -> None:
    planned = plan(protocol(), {}, cases=1000, discordance=0.05)
    assert (planned.joint, planned.joint_least) == (None, None)


def test_more_looks_leave_less_power() -> None:
    one, four = (plan(protocol(looks=n), {}, cases=1067, discordance=0.05) for n in (1, 4))
    assert (one.alpha, four.alpha) == (0.025, 0.00625)
    assert four.rows[0].power < one.rows[0].power - 0.1  # type: ignore[operator]
    assert four.rows[0].needed > one.rows[0].needed  # type: ignore[operator]


def test_a_class_s_own_margin_is_planned() -> None:
    text = protocol(classes=("NORMAL", "PNEUMONIA")).model_dump(mode="json")
    recall = text["endpoints"]["noninferiority"][1]
    recall["by_class"] = {"specificity": {"margin": 0.1, "justification": "A second reader."}}
    rules = Protocol.model_validate_json(json.dumps(text))
    rows = plan(rules, {"NORMAL": 300, "PNEUMONIA": 200}, cases=500, discordance=0.05).rows
    assert [row.margin for row in rows] == [0.02, 0.1, 0.05]


def test_the_command_says_the_loss_and_the_power_of_all_together(tmp_path: Path) -> None:
    given = ("protocol", "plan", "demo", "--cases", 1000, "--positives", 400, "--expected-loss", 0.01)
    assert_clear(medharden(*given, cwd=tmp_path), 0, "1 % of cases are truly lost", "all of these together pass")
    found = json.loads(medharden(*given, "--json", cwd=tmp_path).stdout)
    assert found["expected_loss"] == 0.01
    assert found["joint_power_least"] <= found["joint_power"] + 0.01
    refused = medharden("protocol", "plan", "demo", "--cases", 9, "--expected-loss", 0.1, cwd=tmp_path)
    assert_clear(refused, 1, "an expected loss of 0.1 needs as large a share of discordant cases")
