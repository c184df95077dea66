"""Planted identities: names, identifiers, dates, UIDs and numbers in every place that data have, and in no output."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from command import medharden
from data_helpers import KEY, class_folders, dicom, protocol
from foreign_networks import TinyNet
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from tiny import ARCH, EACH_CASE, PROTOCOL
from verifying_runs import WHO, make_key

from medharden.audit import AuditLog, audited, read_cases, write_record
from medharden.data import load_cohort
from medharden.errors import DataError, PrivacyError
from medharden.verifying import compare, sign, verify

UID = "1.3.6.1.4.1.99999.4711"
CANARIES = (
    "canary", "19470131", "1947-01-31", "31.01.1947", "20190402", "ACC-0815", "HDR-0815", "RP-0815",
    "Totenham Lane", "08154711", "priv8te", "LORD^SECRET", "Secret Lord",
)  # fmt: skip
LINES = (
    "splits: {near_duplicate_bits: null, similar_bits: null}\n"
    "input: {intensity: {mode: window, low: 0, high: 255}}\n"
    "columns: {label: finding, patient: patient}\nsubgroups: {columns: [ward], min_cases: 1}\n"
)


def plant(folder: Path) -> None:
    """60 small CT files of 30 patients, each place of header, path and manifest with a canary in it."""
    rows = ["path,finding,patient,Patient_Name,birth_date,remark,ward,split"]
    random = np.random.default_rng(0)
    for n in range(60):
        pixels = random.normal(100, 8, (16, 16))
        pixels[:8, 8 * (n % 2) : 8 * (n % 2) + 8] += 80
        request = Dataset()
        request.RequestedProcedureID, request.ReferringPhysicianName = "RP-0815", "LORD^SECRET"
        split = "train" if n < 30 else "val" if n < 44 else "test"
        name = f"Canary_Jane/CANARYFILE_{n}.dcm"
        dicom(
            folder / name,
            pixels.clip(0, 255).astype(np.uint16),
            PatientName="Canary^Jane",
            PatientID=f"HDR-0815-{n // 2}",
            PatientBirthDate="19470131",
            StudyDate="20190402",
            AccessionNumber="ACC-0815",
            PatientAddress="4 Totenham Lane",
            PatientTelephoneNumbers="08154711",
            PatientComments="seen by canary",
            StudyInstanceUID=f"{UID}.1",
            SOPInstanceUID=f"{UID}.2.{n}",
            RequestAttributesSequence=Sequence([request]),
        )
        rows.append(
            f"{name},{'ab'[n % 2]},CANARY-{n // 2},Jane Canary,31.01.1947,priv8te{n},{'AB'[n % 3 // 2]},{split}"
        )
    (folder / "labels.csv").write_text("\n".join(rows))


def everything(run: Path) -> str:
    """All that a run directory says: bytes, and what is packed in them."""
    said = []
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        data = path.read_bytes()
        said.append(f"{path.name}\n{data.decode('latin-1')}")
        packed = [base64.b64decode(m, validate=False) for m in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data)]
        if path.suffix == ".json" and b'"payload"' in data:
            packed += [base64.b64decode(m) for m in re.findall(rb'"payload":"([^"]+)"', data)]
        if path.suffix == ".pdf":
            packed += list(streams(data))
        said += [p.decode("latin-1") for p in packed]
        if path.suffix == ".parquet":
            table = read_cases(path)
            said.append(str((table.case, table.patient, table.groups, [s.won_by for s in table.subjects.values()])))
    return "\n".join(said)


def streams(data: bytes) -> list[bytes]:
    """The compressed parts of a PDF."""
    found = []
    for part in re.findall(rb"stream\r?\n(.*?)endstream", data, re.S):
        try:
            found.append(zlib.decompressobj().decompress(part))
        except zlib.error:
            continue
    return found


def said_by(cwd: Path, *arguments: str) -> tuple[int, str]:
    done = medharden(*arguments, cwd=cwd, timeout=400)
    return done.returncode, done.stdout + done.stderr


def test_a_planted_identity_is_in_no_output_log_signature_report_or_message(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    plant(tmp_path / "data")
    (tmp_path / "p.yaml").write_text(PROTOCOL.replace("epochs: 20", "epochs: 1").replace(EACH_CASE, "") + LINES)
    torch.manual_seed(0)
    torch.save(TinyNet(2).state_dict(), tmp_path / "model.pt")
    options = ("--data", "data", "--protocol", "p.yaml", "--arch", ARCH)
    code, said = said_by(tmp_path, "harden", "model.pt", *options, "--out", "run", "--pictures")
    assert code in (0, 3, 4), said
    run = tmp_path / "run"
    assert (run / "report.pdf").is_file()
    key, public = make_key(tmp_path)
    sign(run, key, WHO, render=None)
    found = verify(run, public_keys=[public])
    assert found.verified, found.faults
    said += f"{found}{compare(run, run)}{everything(run)}"
    broken = tmp_path / "data" / "Canary_Jane" / "CANARYFILE_7.dcm"
    broken.write_bytes(broken.read_bytes()[:700])
    code, words = said_by(tmp_path, "harden", "model.pt", *options, "--out", "other")
    assert code == 1, words
    assert "can't be used" in words
    said += words + everything(tmp_path / "other")
    lower = said.lower()
    assert not [canary for canary in (*CANARIES, UID, str(tmp_path / "data")) if canary.lower() in lower]
    assert "finding" in said


def test_a_person_s_name_as_a_class_is_withheld_before_it_is_recorded(tmp_path: Path) -> None:
    cohort = load_cohort(class_folders(tmp_path / "d", classes=("DOE^JOHN", "other")), protocol(), key=KEY)
    with pytest.raises(PrivacyError, match=r"cohort\.json would hold patient data \(name\)"):
        write_record(tmp_path / "cohort.json", cohort.record)
    assert not (tmp_path / "cohort.json").exists()


def test_an_exception_s_text_gets_into_no_log(tmp_path: Path) -> None:
    for error in (DataError("of Canary^Jane"), ValueError("HDR-0815"), KeyboardInterrupt("CANARYFILE_1")):
        with pytest.raises(type(error)), audited(tmp_path, "stage"):
            raise error
    AuditLog(tmp_path / "audit.jsonl").append("end")
    said = (tmp_path / "audit.jsonl").read_text()
    assert not [canary for canary in CANARIES if canary.lower() in said.lower()]
    assert [json.loads(line)["event"] for line in said.splitlines()][-1] == "end"
