"""A protocol that could never support a claim is refused, or says so; and what any protocol could show, in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gating_factory as factory
import numpy as np
import pytest
from command import assert_clear, medharden
from tiny import tiny_protocol

from medharden.audit import RunHistory
from medharden.errors import ProtocolError
from medharden.protocol import Protocol, load_protocol, parse_protocol, shipped_protocols
from medharden.record import Verdict
from medharden.stats import clopper_pearson_interval, fewest_cases, noninferiority_test
from medharden.strength import strength

HEAD = "schema_version: 1\nname: claims\ntitle: Claims\nintended_use: Tests.\nthreat: {eps: 2, unit: 1/255}\n"
WEAK = "{attacks: [{attack: ATTACK, steps: STEPS}]CASES}"


def made(text: str) -> Protocol:
    return parse_protocol(HEAD + text + "\n", "claims.yaml")


def margins(accuracy: str, recall: str = "{metric: recall, margin: 0.05}", more: str = "") -> str:
    return f"endpoints: {{noninferiority: [{{metric: accuracy, {accuracy}}}, {recall}{more}]}}"


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("endpoints: {alpha: 0.49}", r"endpoints\.alpha.*less than or equal to 0\.05, found 0\.49"),
        ("endpoints: {alpha: 0.0500001}", r"endpoints\.alpha"),
        ("endpoints: {looks: 1000}", r"endpoints\.looks.*less than or equal to 20, found 1000"),
        ("endpoints: {looks: 21}", r"endpoints\.looks"),
        (margins("margin: 0.99"), "accuracy has a margin of 0.99; above 0.2 it needs its justification"),
        (margins("margin: 0.21"), "accuracy has a margin of 0.21"),
        (margins('margin: 0.21, justification: " "'), "accuracy has a margin of 0.21"),
        (margins("margin: 0.02", "{metric: recall, margin: 0.5}"), "recall has a margin of 0.5"),
        (margins("margin: 0.02", more=", {metric: brier, margin: 0.3}"), "brier has a margin of 0.3"),
        (margins("margin: 0.02", more=", {metric: auroc, margin: 0.3}"), "auroc has a margin of 0.3"),
        (
            "task: {classes: [no, yes], positive: yes}\n"
            + margins("margin: 0.02", "{metric: recall, margin: 0.05, by_class: {specificity: {margin: 0.4}}}"),
            "recall of specificity has a margin of 0.4",
        ),
        ("suite: {attacks: [{attack: pgd, steps: 1}], cases: 5}", "none of its attacks is pgd or apgd with 20 steps"),
        ("suite: {name: thorough, cases: 5}", "it attacks 5 cases at most, fewer than 100.*suite.reason"),
        ('suite: {name: fast, cases: 5, reason: ""}', r"suite\.reason"),
        ('suite: {name: fast, cases: 5, reason: "  "}', r"suite\.reason"),
    ],
)
def test_what_claims_nothing_is_refused_with_what_is_missing(text: str, said: str) -> None:
    with pytest.raises(ProtocolError, match=f"(?s){said}"):
        made(text)


@pytest.mark.parametrize(
    "text",
    [
        "endpoints: {alpha: 0.05, looks: 20}",
        margins("margin: 0.2", "{metric: recall, margin: 0.2}"),
        margins("margin: 0.3, justification: A reader sees each image again."),
        "suite: {name: fast}",
        "suite: {name: fast, cases: 100}",
        "suite: {attacks: [{attack: pgd, steps: 20}]}",
        "suite: {attacks: [{attack: square, steps: 10}, {attack: apgd, loss: ce, steps: 20}]}",
    ],
)
def test_what_may_be_right_is_not(text: str) -> None:
    assert not made(text).suite.weakness


@pytest.mark.parametrize("attack", ["square", "fab", "apgd-t"])
def test_an_attack_that_is_no_plain_gradient_attack_is_no_stand_in_for_one_however_long(attack: str) -> None:
    suite = WEAK.replace("ATTACK", attack).replace("STEPS", "5000").replace("CASES", ", reason: Few")
    assert "none of its attacks is pgd or apgd" in made(f"suite: {suite}").suite.weakness


def test_shipped_protocols_need_no_excuse() -> None:
    for name in shipped_protocols():
        assert not load_protocol(name).suite.weakness, name


# --- said -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [False, True])
def test_every_verdict_under_a_weak_suite_says_so_with_its_reason(broken: bool) -> None:
    text = factory.protocol(sample=100).model_dump(mode="json")
    text["suite"] |= {"cases": 60, "reason": "A first look."}
    run = factory.records(rules=Protocol.model_validate_json(json.dumps(text)), attacked=60, robust=(6, 40))
    decision = replace(run, history=RunHistory() if broken else run.history).decide()
    assert (decision.verdict is Verdict.INVALID) == broken
    [finding] = [f for f in decision.findings if f.code == "gate.weak_suite"]
    assert finding.severity == "warning"
    assert "it attacks 60 cases at most, fewer than 100" in finding.message
    assert finding.message.endswith("why it is enough: A first look.")
    assert finding.message in decision.reasons


def test_a_suite_of_full_strength_is_not_called_weak() -> None:
    assert "gate.weak_suite" not in {f.code for f in factory.records().decide().findings}


# --- judged ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("alpha", [0.025, 0.00125, 0.05])
def test_the_fewest_cases_are_those_from_which_equal_answers_suffice(margin: float, alpha: float) -> None:
    def shown(n: int) -> bool:
        return noninferiority_test([False] * n, [False] * n, margin=margin, alpha=alpha, patients=None).shown

    n = fewest_cases(margin, alpha=alpha)
    assert shown(n)
    assert not shown(n - 1)


def test_a_protocol_is_told_what_a_pass_under_it_would_say_and_what_not() -> None:
    judged = strength(factory.protocol(looks=4, mode="clean", sample=100, floor=0.5))
    assert "each endpoint passes wrongly with a chance of 0.025 at most, over 4 looks, each decided at 0.00625" in (
        judged.shows
    )
    assert "accuracy falls by less than 2 points" in judged.shows
    assert "robust accuracy is 50 % at least" in judged.shows
    assert any("linf changes of 2 (1/255), by pgd-ce-20" in said for said in judged.shows)
    least = fewest_cases(0.02, alpha=0.00625)
    assert f"accuracy: a margin of 2 points can't be shown on fewer than {least} cases" in judged.leaves_open
    assert any("recall: a margin of 5 points can't be shown on fewer than" in said for said in judged.leaves_open)
    assert any("fusion clean" in said for said in judged.leaves_open)
    width = 50 * float(np.diff(clopper_pearson_interval(50, 100, level=1 - 0.0125))[0])
    assert 12.5 < width < 14.5
    assert f"with 100 cases attacked, a robust accuracy of a half is known to {width:.0f} points" in judged.leaves_open


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no floor is asked of robust accuracy"),
        ("", "conventions without a clinical reason: accuracy margin 0.02"),
        ("", "no subgroup is looked at"),
        (margins("margin: 0.2"), "accuracy: a loss just below 20 points would pass"),
        ("suite: {name: fast, cases: 9, reason: Few.}", "the suite is weak"),
        ("suite: {name: fast, sanity_cases: 0}", "no sanity curves"),
        ("splits: {near_duplicate_bits: null}", "nobody looks for images that look like copies"),
        ("splits: {patients: {unit: each_case, reason: Known.}}", "the protocol's word"),
    ],
)
def test_what_a_protocol_leaves_open_is_said(text: str, said: str) -> None:
    assert any(said in sentence for sentence in strength(made(text)).leaves_open)


def test_a_budget_below_a_grey_level_is_said() -> None:
    small = parse_protocol(HEAD.replace("eps: 2,", "eps: 0.5,"), "claims.yaml")
    assert any("less than one of 256 grey levels" in said for said in strength(small).leaves_open)
    assert not any("grey levels" in said for said in strength(made("")).leaves_open)


def test_every_shipped_protocol_and_one_of_stored_values_can_be_judged() -> None:
    stored = parse_protocol(HEAD.replace("{eps: 2, unit: 1/255}", "{space: stored, eps: 2, unit: counts}"), "s.yaml")
    for protocol in (*map(load_protocol, shipped_protocols()), tiny_protocol(), stored):
        judged = strength(protocol)
        assert judged.shows
        assert judged.leaves_open
        assert not [said for said in (*judged.shows, *judged.leaves_open) if said.endswith(".") or "None" in said]


def test_validate_and_plan_say_it(tmp_path: Path) -> None:
    (tmp_path / "weak.yaml").write_text(HEAD + "suite: {name: fast, cases: 30, reason: A first look.}\n")
    validated = medharden("protocol", "validate", "weak.yaml", cwd=tmp_path)
    assert_clear(validated, 0, "a PASS says", "can't be shown on fewer than 189 cases", "the suite is weak")
    planned = medharden("protocol", "plan", "weak.yaml", "--cases", 300, "--positives", 40, cwd=tmp_path)
    assert_clear(
        planned, 0, "the suite is weak", "40 cases can't show the margin of 5 points though none be lost", "73 at least"
    )
    both = [
        json.loads(medharden("protocol", *words, "--json", cwd=tmp_path).stdout)["strength"]
        for words in (("validate", "weak.yaml"), ("plan", "weak.yaml"))
    ]
    assert both[0] == both[1]
    assert set(both[0]) == {"shows", "leaves_open"}
    (tmp_path / "none.yaml").write_text(HEAD + "endpoints: {alpha: 0.49, looks: 1000}\n")
    assert_clear(medharden("protocol", "validate", "none.yaml", cwd=tmp_path), 1, "endpoints.alpha", "endpoints.looks")
