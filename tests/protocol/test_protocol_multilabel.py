"""Protocols of multi-label tasks: what is asked of them, and errors that say what to write."""

from __future__ import annotations

import pytest

from medharden.errors import ProtocolError
from medharden.protocol import Protocol, parse_protocol

HEAD = "schema_version: 1\nname: tiny\ntitle: Tiny\nintended_use: None\nthreat: {eps: 2, unit: 1/255}\n"
ENDPOINTS = "endpoints: {noninferiority: [{metric: accuracy, margin: 0.02}, {metric: recall, margin: 0.05}]}\n"
TASK = "task: {kind: multilabel, classes: [Effusion, Mass]}\n"


def parsed(text: str) -> Protocol:
    return parse_protocol(HEAD + text, "mine.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task: {kind: multilabel}\n" + ENDPOINTS, "needs task.classes: the findings"),
        ("task: {kind: multilabel, classes: []}\n" + ENDPOINTS, "needs task.classes: the findings"),
        ("task: {kind: multilabel, classes: ['a|b', c]}\n" + ENDPOINTS, "without '|'"),
        ("task: {kind: multilabel, classes: [a, a]}\n" + ENDPOINTS, "names a class twice"),
        ("task: {kind: multilabel, classes: [a, b], positive: a}\n" + ENDPOINTS, "leave it out"),
        ("task: {kind: multilabel, classes: [a, b], threshold: {a: 0.2}}\n" + ENDPOINTS, "lacking ['b']"),
        ("task: {kind: multilabel, classes: [a, b], threshold: {a: 0.2, b: 1.0}}\n" + ENDPOINTS, "less than 1"),
        ("task: {classes: [a, b], threshold: {a: 0.2, b: 0.3}}\n", "is for task.kind multilabel"),
        (TASK, "needs endpoints.noninferiority written out"),
        (
            TASK + ENDPOINTS.replace("]}", ", {metric: balanced_accuracy, margin: 0.1}]}"),
            "not for task.kind multilabel",
        ),
        (ENDPOINTS.replace("]}", ", {metric: finding_auroc, margin: 0.1}]}"), "not for task.kind multiclass"),
        ("task: {classes: [a]}\n", "two classes or more"),
    ],
)
def test_a_multi_label_protocol_that_can_not_be_meant_says_what_to_write(text: str, expected: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parsed(text)
    assert expected in str(caught.value)


def test_a_threshold_holds_for_all_findings_or_for_each_by_name() -> None:
    assert parsed(TASK + ENDPOINTS).decision_rule(2) == "0.5 for each finding"
    each = parsed(TASK.replace("}", ", threshold: {Mass: 0.25, Effusion: 0.5}}") + ENDPOINTS)
    assert [each.task.threshold_of(name) for name in each.task.classes or ()] == [0.5, 0.25]
    assert each.decision_rule(2) == "Effusion 0.5, Mass 0.25"
    assert parsed(TASK.replace(", Mass", "") + ENDPOINTS).task.classes == ("Effusion",), "one finding is a task too"
