"""Canonical JSON, atomic files and the hash-chained log."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medharden.audit import (
    AuditLog,
    audited,
    canonical_json,
    digest_file,
    read_cases,
    read_record,
    stream_atomic,
    verify_log,
    write_atomic,
    write_cases,
    write_record,
)
from medharden.errors import OutputError, RunError
from medharden.record import CaseTable, Finding, FrontierPoint, FusionRecord, SubjectTable

POINT = FrontierPoint(weight=0.6, gained=1, lost=2, cases=100, lower=-0.05, upper=0.03, robust=0.7, attacked=60)
FUSION = FusionRecord("mixed", 0.6, 1.5, 0.7, 0.2, 0.03, (POINT,))


def test_a_nested_record_survives_a_round_trip(tmp_path: Path) -> None:
    digest = write_record(tmp_path / "fusion.json", FUSION)
    assert read_record(tmp_path / "fusion.json", FusionRecord) == FUSION
    assert digest == digest_file(tmp_path / "fusion.json")


@pytest.mark.parametrize("where", ["outer", "inner"])
def test_an_unknown_key_in_a_record_is_refused_at_any_depth(tmp_path: Path, where: str) -> None:
    fields = json.loads(canonical_json(FUSION))
    (fields if where == "outer" else fields["frontier"][0])["surprise"] = 1
    (tmp_path / "fusion.json").write_bytes(canonical_json(fields) + b"\n")
    with pytest.raises(RunError, match="surprise"):
        read_record(tmp_path / "fusion.json", FusionRecord)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_never_gets_into_a_record(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match=r"nan|inf|range"):
        write_record(tmp_path / "x.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


def test_a_case_table_survives_a_round_trip(tmp_path: Path) -> None:
    subject = SubjectTable(
        predicted=np.array([0, 1, 1]),
        probabilities=np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]),
        robust=np.array([True, False, False]),
        won_by=("", "apgd-ce-50", "clean"),
        referred=np.array([False, False, True]),
    )
    table = CaseTable(
        ("a", "b", "c"),
        ("p", "p", "q"),
        np.array([0, 1, 0]),
        np.array([True, True, False]),
        {"x": subject},
        {"x.predicted": ("F", "M", "")},
    )
    write_cases(tmp_path / "cases.parquet", table)
    back = read_cases(tmp_path / "cases.parquet")
    assert (back.case, back.patient) == (table.case, table.patient)
    assert back.groups == table.groups
    assert list(back.subjects) == ["x"]
    assert back.subjects["x"].won_by == subject.won_by
    np.testing.assert_array_equal(back.subjects["x"].probabilities, subject.probabilities)
    np.testing.assert_array_equal(back.subjects["x"].referred, subject.referred)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "record.json"
    write_atomic(target, b"old")

    def full(self: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_path_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="could not be written"):
        write_atomic(tmp_path / "file" / "x.json", b"{}")


def make_log(folder: Path, events: int = 4) -> Path:
    log = AuditLog(folder / "audit.jsonl")
    for number in range(events):
        log.append("step", number=number)
    return folder / "audit.jsonl"


def test_an_untouched_log_hangs_together(tmp_path: Path) -> None:
    assert verify_log(make_log(tmp_path))[0] == 4


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [lines[0], lines[1].replace(b'"number":1', b'"number":9'), *lines[2:]],
        lambda lines: [*lines[:3], lines[3][:-5]],
        lambda lines: [*lines, b"{}"],
        lambda lines: [lines[0] + b"\r" + lines[1], *lines[2:]],
    ],
    ids=["first dropped", "middle dropped", "reordered", "edited", "torn", "appended", "line end changed"],
)
def test_a_tampered_log_is_caught_and_not_continued(tmp_path: Path, tamper) -> None:
    path = make_log(tmp_path)
    path.write_bytes(b"\n".join(tamper(path.read_bytes().splitlines())) + b"\n")
    with pytest.raises(RunError, match="line"):
        verify_log(path)
    with pytest.raises(RunError):
        AuditLog(path).append("more")


def test_a_stage_is_logged_however_it_ends(tmp_path: Path) -> None:
    with audited(tmp_path, "outer"):
        with pytest.raises(ValueError, match="secret"), audited(tmp_path, "inner"):
            raise ValueError("secret name")
        with pytest.raises(KeyboardInterrupt), audited(tmp_path, "other"):
            raise KeyboardInterrupt
    events = [json.loads(line)["event"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert events == [
        "outer.started",
        "inner.started",
        "inner.failed",
        "other.started",
        "other.interrupted",
        "outer.finished",
    ]
    assert "secret" not in (tmp_path / "audit.jsonl").read_text()
    assert verify_log(tmp_path / "audit.jsonl")[0] == 6


def test_findings_are_plain_json() -> None:
    assert canonical_json(Finding("a.b", "info", "ü")) == '{"code":"a.b","message":"ü","severity":"info"}'.encode()


def test_a_full_disk_under_a_library_s_own_writer_is_an_output_error_too(tmp_path: Path) -> None:
    import torch

    class Full:
        """A file on a disk with room for a thousand bytes."""

        def __init__(self, stream) -> None:
            self.stream = stream

        def write(self, data: bytes) -> int:
            if self.stream.tell() + len(data) > 1000:
                raise OSError(28, "No space left on device")
            return self.stream.write(data)

        def flush(self) -> None:
            self.stream.flush()

    with pytest.raises(OutputError, match="No space left"):
        stream_atomic(tmp_path / "x.pt", lambda stream: torch.save({"a": torch.zeros(9000)}, Full(stream)))
    with pytest.raises(RuntimeError, match="a defect"):
        stream_atomic(tmp_path / "x.pt", lambda stream: (_ for _ in ()).throw(RuntimeError("a defect")))
    assert list(tmp_path.iterdir()) == []
