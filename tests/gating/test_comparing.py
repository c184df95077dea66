"""Two sets of answers from CSV files: published examples come out, and what can't be compared is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import medharden
from gating_factory import protocol, records
from stats_examples import GAINED, LOST, SIZES, asah

from medharden.errors import DataError, ProtocolError
from medharden.gating import AnswerColumns, Asked, compare_answers, read_answers
from medharden.record import ComparedAnswers, ComparedRow, Verdict
from medharden.stats import brier_difference, tango_interval

TANGO = [  # both right, gained, lost, neither; lower and upper 95 % limit (Tango 1998; the last of them at 90 %)
    ((59, 6, 16, 80), 0.025, (-0.1240, -0.0054)),
    ((1, 1, 7, 12), 0.025, (-0.517, -0.026)),
    ((4, 9, 3, 16), 0.025, (-0.027, 0.390)),
    ((53, 16, 8, 9), 0.025, (-0.020, 0.207)),
    ((43, 0, 1, 0), 0.05, (-0.096, 0.037)),
]
EACH = "one image a person"


def write(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def pair_of(folder: Path, right: list[tuple[bool, bool]], patients: list[str] | None = None) -> tuple[Path, Path]:
    """Files in which old and new are right as given; half of the cases are of either class."""
    folder.mkdir(exist_ok=True)
    labels = ["ill" if k % 2 else "well" for k in range(len(right))]
    other = {"ill": "well", "well": "ill"}
    paths = []
    for side, name in enumerate(("old", "new")):
        rows = [
            [f"case{k}", patients[k] if patients else f"p{k}", label, label if right[k][side] else other[label]]
            for k, label in enumerate(labels)
        ]
        paths.append(write(folder / f"{name}.csv", ["case", "patient", "label", "answer"], rows))
    return paths[0], paths[1]


def compared(old: Path, new: Path, truth: Path | None = None, **named: object) -> ComparedAnswers:
    columns = AnswerColumns({}, positive=named.pop("positive", None), threshold=named.pop("threshold", None))
    margins, alpha = named.pop("margins", {}), named.pop("alpha", 0.025)
    return compare_answers(read_answers(old, new, truth, columns), Asked(margins, alpha, named.pop("each_case", "")))


def row_of(found: ComparedAnswers, name: str) -> ComparedRow:
    return next(row for row in found.rows if row.name == name)


@pytest.mark.parametrize(("counts", "alpha", "limits"), TANGO)
def test_tango_s_published_limits_come_out(tmp_path: Path, counts, alpha, limits) -> None:
    kinds = [(True, True), (False, True), (True, False), (False, False)]
    right = [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]
    row = row_of(compared(*pair_of(tmp_path, right), alpha=alpha), "accuracy")
    assert (row.lower, row.upper) == pytest.approx(limits, abs=5e-4)
    assert row.table == counts
    assert row.verdict is None


def test_patients_with_several_cases_widen_the_limits_as_the_gate_s_own(tmp_path: Path) -> None:
    values = [(k, v) for k, (b, c, n) in enumerate(zip(GAINED, LOST, SIZES, strict=True))
              for v in [1] * b + [-1] * c + [0] * (n - b - c)]  # fmt: skip
    right = [(v <= 0, v >= 0) for _, v in values]
    patients = [f"psychiatrist {k}" for k, _ in values]
    row = row_of(compared(*pair_of(tmp_path, right, patients)), "accuracy")
    assert (row.n, row.patients, row.estimate) == (135, 29, pytest.approx(-0.2148, abs=5e-5))
    alone = tango_interval(sum(GAINED), sum(LOST), 135)
    assert row.lower < alone[0] - 0.01
    assert row.upper > alone[1] + 0.01


def test_the_auroc_of_the_asah_data_are_the_published_ones_on_any_scale(tmp_path: Path) -> None:
    wfns, s100b, poor = asah()
    for scale in (1.0, -7.0):  # ranks decide; lower than 0 is no probability either
        old, new = (
            write(tmp_path / f"{name}.csv", ["id", "truth", "score"],
                  [[k, "poor" if p else "good", v + scale] for k, (v, p) in enumerate(zip(values, poor, strict=True))])
            for name, values in (("s100b", s100b), ("wfns", wfns))
        )  # fmt: skip
        row = row_of(compared(old, new, positive="poor", threshold=3.0, each_case=EACH), "auroc")
        assert (row.old, row.new) == (pytest.approx(0.7313686, abs=1e-6), pytest.approx(0.8236789, abs=1e-6))


def test_the_limits_are_those_that_the_gate_gives_a_run_with_the_same_answers(tmp_path: Path) -> None:
    run = records(rules=protocol(more=(("auroc", 0.05), ("brier", 0.02))), gained=3, lost=5)
    cases, classes = run.cases, run.cohort.classes
    for name, subject in (("old", "original"), ("new", "composite")):
        table = cases.subjects[subject]
        rows = [
            [case, who, classes[label], classes[answer], *map(repr, scores)]
            for case, who, label, answer, scores in zip(
                cases.case, cases.patient, cases.label, table.predicted, table.probabilities.tolist(), strict=True
            )
        ]
        header = ["case", "patient_id", "label", "predicted", *(f"probability:{c}" for c in classes)]
        write(tmp_path / f"{name}.csv", header, rows)
    decision = run.decide()
    margins = {"accuracy": 0.02, "recall": 0.05, "auroc": 0.05, "brier": 0.02}
    found = compared(tmp_path / "old.csv", tmp_path / "new.csv", positive="PNEUMONIA", margins=margins)
    gated = {e.name: e for e in decision.endpoints if e.kind in ("noninferiority", "brier")}
    assert set(gated) <= {row.name for row in found.rows}
    assert len(gated) == 5
    for name, endpoint in gated.items():
        row = row_of(found, name)
        assert (row.estimate, row.lower, row.upper) == (endpoint.estimate, endpoint.lower, endpoint.upper), name
        assert (row.verdict, row.reason) == (endpoint.verdict, endpoint.reason), name


def test_all_stated_margins_must_be_shown_and_the_gravest_reason_stands_first(tmp_path: Path) -> None:
    right = [(True, True)] * 380 + [(True, False)] * 20
    found = compared(*pair_of(tmp_path, right), margins={"accuracy": 0.08, "well": 0.06, "ill": 0.04})
    verdicts = {row.name: row.verdict for row in found.rows if row.margin}
    assert verdicts == {"accuracy": Verdict.PASS, "recall:well": Verdict.INCONCLUSIVE, "recall:ill": Verdict.FAIL}
    assert found.verdict is Verdict.FAIL
    assert found.reasons[0].startswith("recall:ill")
    assert compared(*pair_of(tmp_path, right), margins={"accuracy": 0.08}).verdict is Verdict.PASS


def test_who_trades_one_class_for_another_is_told_that_nothing_looks_at_it(tmp_path: Path) -> None:
    paths = pair_of(tmp_path, [(True, True)] * 200)
    said = "trading one class for another"
    assert any(said in note for note in compared(*paths, margins={"accuracy": 0.05}).notes)
    assert not any(said in note for note in compared(*paths, margins={"accuracy": 0.05, "recall": 0.1}).notes)


def test_cases_without_a_patient_pass_only_on_somebody_s_word(tmp_path: Path) -> None:
    old, new = pair_of(tmp_path, [(True, True)] * 200, [""] * 7 + [f"p{k}" for k in range(193)])
    found = compared(old, new, margins={"accuracy": 0.05})
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "7 of 200 cases name no patient" in found.reasons[0]
    found = compared(old, new, margins={"accuracy": 0.05}, each_case=EACH)
    assert found.verdict is Verdict.PASS
    assert any(EACH in note for note in found.notes)


def test_a_patient_is_one_however_the_identifier_is_written(tmp_path: Path) -> None:
    names = [f"{k // 4:04d}" if k % 2 else f" {k // 4}.0" for k in range(100)]
    assert compared(*pair_of(tmp_path, [(True, True)] * 100, names)).patients == 25


def test_few_patients_show_nothing_whatever_the_margin(tmp_path: Path) -> None:
    old, new = pair_of(tmp_path, [(True, True)] * 190, [f"p{k % 19}" for k in range(190)])
    found = compared(old, new, margins={"accuracy": 0.2})
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "too few" in found.reasons[0]


def test_a_blank_answer_is_not_right_and_is_counted(tmp_path: Path) -> None:
    old, new = pair_of(tmp_path, [(True, True)] * 60)
    lines = new.read_text().splitlines()
    new.write_text("\n".join([lines[0], *(line.rpartition(",")[0] + "," for line in lines[1:6]), *lines[6:]]))
    found = compared(old, new)
    assert row_of(found, "accuracy").table == (55, 0, 5, 0)
    assert "new: 5 of 60 cases are not answered, which counts as not right" in found.notes


def test_label_and_patient_may_stand_in_a_third_file_with_more_cases(tmp_path: Path) -> None:
    old, new = pair_of(tmp_path, [(True, True)] * 40)
    whole = compared(old, new)
    truth = write(tmp_path / "truth.csv", ["Image ID", "Patient_ID", "diagnosis"],
                  [[f"case{k}", f"p{k}", "ill" if k % 2 else "well"] for k in range(50)])  # fmt: skip
    for path in (old, new):
        kept = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("\n".join(f"{cells[0].upper()};{cells[3]}" for cells in kept))
    columns = AnswerColumns({"label": "diagnosis"})
    found = compare_answers(read_answers(old, new, truth, columns), Asked({}))
    assert found.rows == whole.rows
    assert sorted(found.inputs) == ["new", "old", "truth"]


def test_brier_is_that_of_both_classes_and_needs_probabilities(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 2, 80), rng.uniform(0, 1, (2, 80))
    old, new = (
        write(tmp_path / f"{k}.csv", ["case", "patient", "label", "score"],
              [[i, i, "yes" if truth[i] else "no", repr(float(scores[k, i]))] for i in range(80)])
        for k in range(2)
    )  # fmt: skip
    row = row_of(compared(old, new, positive="yes"), "brier")
    both = [np.stack([1 - s, s], axis=1) for s in scores]
    expected = brier_difference(both[1], both[0], truth)
    assert (row.estimate, row.lower, row.upper) == pytest.approx((expected.estimate, *expected.interval))
    assert row.old == pytest.approx(2 * np.mean((scores[0] - truth) ** 2))


def swapped(old: str, new: str) -> Callable[[list[str]], list[str]]:
    """The file's lines with a piece of its first case, or of its head, exchanged."""
    return lambda lines: [line.replace(old, new) if k < 2 else line for k, line in enumerate(lines)]


def scored(name: str, value: str) -> Callable[[list[str]], list[str]]:
    """The answers exchanged for a column of scores that are all the same."""
    return lambda lines: [lines[0].replace("answer", name), *(line.rpartition(",")[0] + value for line in lines[1:])]


ILL = {"positive": "ill"}
REFUSED: dict[str, tuple[Callable[[list[str]], list[str]], dict[str, object], str]] = {
    "fewer": (lambda lines: lines[:-2], {}, "2 of 30 of the old file are not in the new"),
    "others": (swapped("case0", "case77"), {}, "1 of 30 of the old file are not in the new"),
    "twice": (
        lambda lines: [*lines, lines[1].replace("case0", "CASE0 ")],
        {},
        "1 rows of the new file name a case again",
    ),
    "label": (swapped("well,well", "ill,well"), {}, "1 cases have another label in the new than in the old file"),
    "patient": (swapped("p0", "p1"), {}, "1 cases have another patient"),
    "answer": (swapped("well,well", "well,Secret"), {}, "1 answers of the new file name none of the classes ill, well"),
    "fields": (swapped("well,well", "well,well,more"), {}, "1 rows of the new file have not the 4 fields"),
    "no answers": (swapped("answer", "opinion"), {}, "has no answers"),
    "two answers": (
        lambda lines: [lines[0] + ",prediction", *(line + ",ill" for line in lines[1:])],
        {},
        "be the answer",
    ),
    "no case": (swapped("case,", "number,"), {}, "no column that names the case"),
    "quote": (swapped("well,well", 'well,"we"ll'), {}, "not readable as CSV"),
    "unnamed": (swapped("case0", " "), {}, "a row that names no case"),
    "whose score": (scored("score", ",0.5"), {}, "--positive"),
    "no number": (swapped("answer", "score"), ILL, "a score that is no number"),
    "not finite": (scored("score", ",nan"), ILL, "a score that is no number"),
    "no threshold": (scored("score", ",17"), ILL, "--threshold"),
    "a score short": (scored("score:ill", ",0.5"), {}, "none of well"),
    "positive": (lambda lines: lines, {"positive": "sick"}, "--positive must be one of two classes"),
    "empty": (lambda lines: lines[:1], {}, "no rows"),
    "no text": (lambda lines: [*lines, "\udcff"], {}, "not UTF-8"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_can_t_be_compared_is_refused_and_nothing_of_a_patient_is_said(tmp_path: Path, what: str) -> None:
    old, new = pair_of(tmp_path, [(True, True)] * 30)
    changed, given, said = REFUSED[what]
    new.write_bytes("\n".join(changed(new.read_text().splitlines())).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=said) as caught:
        compared(old, new, **given)
    assert not any(word in str(caught.value) for word in ("case0", "case77", "Secret", "p1", str(tmp_path)))


def test_a_file_that_is_not_there_is_told_by_its_part(tmp_path: Path) -> None:
    old, new = pair_of(tmp_path, [(True, True)] * 30)
    new.unlink()
    with pytest.raises(DataError, match="the new file can't be read"):
        compared(old, new)


@pytest.mark.parametrize(
    ("margins", "alpha", "said"),
    [
        ({"accuracy": 2.0}, 0.025, "0.2 at most"),
        ({"accuracy": 0.0}, 0.025, "above 0"),
        ({"accuracy": float("nan")}, 0.025, "above 0"),
        ({"kappa": 0.02}, 0.025, "kappa is none of what these answers give"),
        ({"auroc": 0.02}, 0.025, "auroc is none of"),
        ({}, 0.2, "one-sided error"),
        ({}, float("nan"), "one-sided error"),
    ],
)
def test_a_margin_or_alpha_that_can_t_be_is_refused(tmp_path: Path, margins, alpha, said) -> None:
    with pytest.raises(ProtocolError, match=said):
        compared(*pair_of(tmp_path, [(True, True)] * 30), margins=margins, alpha=alpha)


def test_the_command_says_what_the_records_say_and_names_nobody(tmp_path: Path) -> None:
    right = [(True, True)] * 150 + [(True, False)] * 12
    old, new = pair_of(tmp_path / "in", right, [f"Jane Roe {k}" for k in range(162)])
    asked = ("compare", old, new, "--margin", "accuracy=0.05", "--positive", "ill")
    done = medharden(*asked, "--out", "out", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    written = json.loads((tmp_path / "out" / "compare.json").read_text())
    page = (tmp_path / "out" / "compare.html").read_text()
    assert written["verdict"] == "FAIL"
    assert "<script" not in page
    assert ">FAIL<" in page
    told = medharden(*asked, "--json", cwd=tmp_path)
    machine = json.loads(told.stdout)
    assert told.returncode == 3
    assert machine["rows"] == written["rows"]
    marked = medharden(*asked, "--format", "markdown", cwd=tmp_path).stdout
    assert "## New answers against old: FAIL" in marked
    for text in (done.stdout, page, json.dumps(written), marked):
        assert "Jane" not in text
        assert "case1" not in text
    plain = medharden("compare", old, new, cwd=tmp_path)
    assert plain.returncode == 0
    assert "nothing is decided" in plain.stdout


def test_names_of_classes_are_text_on_the_page(tmp_path: Path) -> None:
    old, new = pair_of(tmp_path, [(True, True)] * 40)
    for path in (old, new):
        path.write_text(path.read_text().replace("ill", "<b>ill</b>"))
    medharden("compare", old, new, "--out", "out", cwd=tmp_path)
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "<b>ill" not in page
    assert "&lt;b&gt;ill" in page
