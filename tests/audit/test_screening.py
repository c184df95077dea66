"""No output gets its name while it holds what the data say of who a patient is, and nothing harmless is withheld."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from data_helpers import KEY, dicom, protocol
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medharden.audit import AuditLog, guarded, write_atomic, write_cases, write_record
from medharden.audit.screening import Screen
from medharden.data import load_cohort
from medharden.errors import PrivacyError
from medharden.record import CaseTable

UID = "1.3.6.1.4.1.14519.5.2.1.4334.1501.3127"
KNOWN = {
    "name": {"Canary^Jane^Q"},
    "identifier": {"MRN-0815", "471123", "P001", "7", "Smith", "23.4567"},
    "date": {"19470131", "20261122"},
    "uid": {UID},
    "accession number": {"ACC99812"},
    "file name": {"CANARYFILE_3.dcm", "image.png", "image", "scan_0042"},
    "folder": {"/srv/hospital/Doe_Jane", "new images", "/data", "Doe_Jane"},
}


def kinds(text: str, name: str = "report.html", allowed: tuple[str, ...] = ()) -> tuple[str, ...]:
    return Screen(KNOWN, allowed).kinds(name, text.encode())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("seen in Canary^Jane^Q today", "name"),
        ("canary, JANE", "name"),
        ("by Jane Canary.", "name"),
        ("file jane_canary", "name"),
        ("(MRN-0815)", "identifier"),
        ("mrn-0815", "identifier"),
        ("patient 471123 failed", "identifier"),
        ("<td>P001</td>", "identifier"),
        ("on 19470131", "date"),
        ("on 1947-01-31,", "date"),
        ("31.01.1947", "date"),
        ("01/31/1947", "date"),
        (f"uid={UID}.", "uid"),
        ("ACC99812", "accession number"),
        ("could not open 'x/CANARYFILE_3.dcm'", "file name"),
        ("SCAN_0042", "file name"),
        ("/srv/hospital/Doe_Jane/1.dcm", "folder"),
        ("x/Doe_Jane/1", "folder"),
    ],
)
def test_a_value_of_the_data_is_found_in_the_forms_in_which_it_is_written(text: str, kind: str) -> None:
    assert kind in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "7 of 7 cases; Smith's test",
        "accuracy 0.471123 and 471123.5",
        "1,471,123 weights",
        "digest a471123b",
        "P0011 and XP001",
        "the image in /data of new images",
        "decided 2026-11-22T15:49:05 and 2026-11-22 15:49",
        "torch 2.12.1.0, 23.4567 mm",
        "MRN-08151",
    ],
)
def test_what_only_looks_like_a_value_passes(text: str) -> None:
    assert kinds(text) == ()


def test_what_the_protocol_or_a_class_says_itself_may_be_said() -> None:
    assert kinds("seed 471123, class P001", allowed=('{"seed":471123}', "P001")) == ()
    assert kinds("seed 471123, class P001, MRN-0815", allowed=('{"seed":471123}', "P001")) == ("identifier",)


def test_numbers_of_a_record_are_no_identifiers_and_its_texts_and_keys_are() -> None:
    assert kinds('{"parameters":471123}', "harden.json") == ()
    assert kinds('{"message":"patient 471123"}', "harden.json") == ("identifier",)
    assert kinds('{"a":1}\n{"MRN-0815":[1]}\n', "audit.jsonl") == ("identifier",)
    assert kinds('{"broken": P001', "harden.json") == ("identifier",)


def test_an_embedded_picture_is_no_text() -> None:
    assert kinds('<img src="data:image/png;base64,AAAA+P001/AAAA">') == ()
    assert kinds('<img src="data:image/png;base64,AAAA+BBBB/AAAA" alt="P001">') == ("identifier",)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"series {UID}9", "uid"),
        ("of DOE^JOHN", "name"),
        ("born 1947-01-31", "date of birth"),
        ("PatientBirthDate: 19470131", "date of birth"),
        ("geb. 31.1.1947", "date of birth"),
    ],
)
def test_forms_of_patient_data_are_found_whatever_the_data_say(tmp_path: Path, text: str, kind: str) -> None:
    with pytest.raises(PrivacyError, match=kind) as caught:
        write_record(tmp_path / "x.json", {"message": text})
    assert text not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["1.2.840.10008.1.2.4.50 is JPEG", "2^31 - 1 and x^T", "Ergebnis: 2026-11-22", "version 1.2.3.4.5"]
)
def test_common_notation_is_no_patient_data(tmp_path: Path, text: str) -> None:
    write_record(tmp_path / "x.json", {"message": text})


def test_a_withheld_file_leaves_the_old_one_and_the_message_names_file_and_kind_alone(tmp_path: Path) -> None:
    write_atomic(tmp_path / "report.html", b"old")
    with guarded(KNOWN), pytest.raises(PrivacyError) as caught:
        write_atomic(tmp_path / "report.html", b"<p>MRN-0815, Canary^Jane^Q</p>")
    assert "report.html would hold patient data (identifier, name)" in str(caught.value)
    assert "0815" not in str(caught.value)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("report.html", b"old")]
    write_atomic(tmp_path / "report.html", b"<p>MRN-0815</p>")


def test_the_log_and_the_case_table_are_held_against_the_values_too(tmp_path: Path) -> None:
    table = CaseTable(
        ("0011223344556677",), ("8899aabbccddeeff",), np.array([0]), np.array([True]), {}, {"ward": ("MRN-0815",)}
    )
    with guarded(KNOWN):
        AuditLog(tmp_path / "audit.jsonl").append("step", file="x")
        with pytest.raises(PrivacyError, match=r"audit\.jsonl"):
            AuditLog(tmp_path / "audit.jsonl").append("step", file="CANARYFILE_3.dcm")
        with pytest.raises(PrivacyError, match=r"cases\.parquet"):
            write_cases(tmp_path / "cases.parquet", table)
    assert [p.name for p in tmp_path.iterdir()] == ["audit.jsonl"]
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 1


def test_a_cohort_knows_what_its_headers_paths_and_columns_say_and_records_none_of_it(tmp_path: Path) -> None:
    item = Dataset()
    item.RequestedProcedureID = "RP-5566"
    rows = ["path,label,patient,Patient_Name,bmi,ward,sex"]
    for number in range(24):
        name = f"Doe_Jane/scan{number}.dcm"
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8)).astype(np.uint16)
        dicom(
            tmp_path / name,
            pixels,
            PatientName="Canary^Jane",
            PatientID="HDR-1",
            PatientBirthDate="19470131",
            AccessionNumber="ACC99812",
            StudyInstanceUID=UID,
            RequestAttributesSequence=Sequence([item]),
        )
        rows.append(f"{name},{'ab'[number % 2]},MRN-{number // 2},Jane Canary,2{number}.5,W{number % 3},F")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    known = {kind: set(values) for kind, values in cohort.identifiers.items()}
    assert "Canary^Jane" in known["name"]
    assert {"HDR-1", "MRN-3", "RP-5566"} <= known["identifier"]
    assert "19470131" in known["date"]
    assert UID in known["uid"]
    assert "ACC99812" in known["accession number"]
    assert {"scan7.dcm", "scan7"} <= known["file name"]
    assert {"Doe_Jane", str(tmp_path.resolve())} <= known["folder"]
    assert known["column Patient_Name"] == {"Jane Canary"}
    assert not [kind for kind in known if "sex" in kind or "ward" in kind]
    said = json.dumps(cohort.record, default=asdict)
    assert Screen(known).kinds("cohort.json", said.encode()) == ()
    assert "Canary" not in repr(cohort.identifiers.keys())


def test_ten_thousand_patients_are_looked_for_in_a_second(tmp_path: Path) -> None:
    import time

    values = {"identifier": {f"MRN-{n:06d}" for n in range(10_000)}, "uid": {f"{UID}.{n}" for n in range(10_000)}}
    cases = [{"case": f"{n:016x}", "pixels": f"{n:064x}", "said": "1 of 2, 1.2 more"} for n in range(10_000)]
    text = json.dumps({"cases": cases}).encode()  # whose numbers are how a UID begins
    started = time.process_time()
    assert Screen(values, ("protocol text " * 500,)).kinds("cohort.json", text) == ()
    assert time.process_time() - started < 3
