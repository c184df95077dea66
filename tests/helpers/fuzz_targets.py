"""Every kind of file of others that medharden reads, as something to fuzz."""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import hostile_files
import hostile_images
import image_makers
import numpy as np
import torch
import yaml
from fuzzing import Target, compressed, repaired_png, zipped_npz
from gating_factory import Records, records
from tiny import ARCH, tiny_model, tiny_protocol
from verifying_runs import make_signed

from medharden.audit import RunFiles
from medharden.audit.envelopes import read_bundle, read_envelope
from medharden.audit.history import history_of
from medharden.audit.keys import load_public_key, load_signing_key
from medharden.audit.ledger import read_ledger
from medharden.audit.log import parse_log
from medharden.audit.records import parse_record
from medharden.audit.tables import parse_cases, write_cases
from medharden.canonical import canonical_json
from medharden.data.formats.files import read_file
from medharden.data.formats.image import quiet_readers
from medharden.data.formats.limits import Room
from medharden.data.sources.archive import list_archive
from medharden.data.sources.manifest import list_manifest
from medharden.gating import decide
from medharden.models import HardenedClassifier, describe_hardened, hardened_bytes, load_classifier, load_hardened
from medharden.protocol import load_protocol, shipped_protocols
from medharden.record import CohortRecord, Evaluation, FusionRecord, GateDecision, HardenRecord
from medharden.reporting import report_files
from medharden.verifying import check_run, compare
from medharden.verifying.logged import logged_of

__all__ = ["NAMES", "SLOW", "targets"]

SLOW = (
    "gate.json", "verify, audit.jsonl", "verify, signatures", "verify, attestation.dsse.json", "verify, harden.json",
    "verify, protocol.yaml", "bundle",
)  # fmt: skip
"""Targets that take a run directory or a network, not a file."""

NAMES = (
    "protocol", "manifest", "manifest of findings", "cohort.json", "harden.json", "evaluation.json", "cases.parquet",
    "gate.json", "audit.jsonl", "signature", "attestation", "verify, audit.jsonl", "verify, signatures",
    "verify, attestation.dsse.json", "verify, harden.json", "verify, protocol.yaml", "ledger", "public key",
    "private key", "checkpoint .pt", "weights .safetensors", "bundle", "hardened.json", "hardened.safetensors",
    "DICOM", "DICOM, 3D", "NIfTI", "NIfTI, compressed", "PNG", "JPEG", "TIFF", "npz",
)  # fmt: skip

Read = Callable[[bytes, Path], object]


def targets(folder: Path) -> tuple[Target, ...]:
    """All of them; `folder` holds the run directory that some start from."""
    run, _, public = make_signed(folder)
    return (
        *_protocols(),
        *_listings(),
        *_records(run),
        *_evidence(run, public),
        *_models(folder),
        *_images(),
    )


def _made(group: object) -> tuple[bytes, ...]:
    """What the makers of hostile files make, without what is too large to be changed a hundred times a second."""
    return tuple(data for data in (make() for make in group.values()) if len(data) < 200_000)  # type: ignore[attr-defined]


def _half_honest(honest: tuple[bytes, ...], hostile: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Seeds of which half are honest: what is refused at the door leads to no other room."""
    return honest * max(1, len(hostile) // len(honest)) + hostile


def _written(name: str, read: Callable[[Path], object]) -> Read:
    def from_file(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return from_file


# --- protocols, manifests, archives ------------------------------------------------------------------------------


def _protocols() -> tuple[Target, ...]:
    whole = yaml.safe_dump(load_protocol("demo").model_dump(mode="json"), sort_keys=False).encode()
    honest = (whole, *(path.read_bytes() for path in shipped_protocols().values()))
    seeds = _half_honest(honest, _made(hostile_files.PROTOCOLS))
    return (Target("protocol", seeds, _written("p.yaml", load_protocol)),)


def _listings() -> tuple[Target, ...]:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["path", "label", "patient", "split", "sex"])
    for n in range(12):
        table.writerow([f"{n}.png", ("normal", "ill")[n % 2], f"p{n // 2}", ("train", "val", "test")[n % 3], "F"])
    plain = text.getvalue().encode()
    findings = plain.replace(b"label", b"findings").replace(b"normal", b"a|b").replace(b"ill", b"")
    several = (
        "task: {kind: multilabel, classes: [a, b]}\n"
        "endpoints: {noninferiority: [{metric: accuracy, margin: 0.1}, {metric: recall, margin: 0.1}]}\n"
    )
    picture = image_makers.png_file(image_makers.GREY)

    def manifest(extra: str) -> Read:
        rules = tiny_protocol(extra)

        def read(data: bytes, folder: Path) -> object:
            for n in range(3):
                (folder / f"{n}.png").write_bytes(picture)
            (folder / "manifest.csv").write_bytes(data)
            return list_manifest(folder / "manifest.csv", rules, lambda text: "case")

        return read

    return (
        Target("manifest", (plain, plain.replace(b",", b";"), b"\xef\xbb\xbf" + plain), manifest("")),
        Target("manifest of findings", (findings, plain), manifest(several)),
    )


# --- records -----------------------------------------------------------------------------------------------------


def _records(run: Path) -> tuple[Target, ...]:
    """Each record changed, and decided on where it still is one, as if every digest had been written anew."""
    files = RunFiles(run)
    made = records()

    def read(name: str, kind: type, put: Callable[[object], Records]) -> Read:
        def target(data: bytes, folder: Path) -> object:
            held = put(parse_record(name, data, kind))
            return decide(
                held.protocol, held.cohort, held.harden, held.evaluation, held.cases,
                digests=made.digests, history=made.history,
            )  # fmt: skip

        return target

    def cases(data: bytes, folder: Path) -> object:
        held = replace(made, cases=parse_cases("cases.parquet", data))
        return decide(
            held.protocol, held.cohort, held.harden, held.evaluation, held.cases,
            digests=made.digests, history=made.history,
        )  # fmt: skip

    def respelt(data: bytes) -> bytes:
        try:
            return canonical_json(json.loads(data)) + b"\n"
        except (ValueError, RecursionError):
            return data

    parts = (
        ("cohort.json", CohortRecord, made.cohort, lambda r: replace(made, cohort=r)),
        ("harden.json", HardenRecord, made.harden, lambda r: replace(made, harden=r)),
        ("evaluation.json", Evaluation, made.evaluation, lambda r: replace(made, evaluation=r)),
    )
    found = [
        Target(name, (canonical_json(record) + b"\n", files.data(name)), read(name, kind, put), respelt)
        for name, kind, record, put in parts
    ]
    return (*found, Target("cases.parquet", (_table(run.parent),), cases), _gate(run, respelt))


def _table(folder: Path) -> bytes:
    write_cases(folder / "few.parquet", records(40).cases)
    return (folder / "few.parquet").read_bytes()


def _gate(run: Path, respelt: Callable[[bytes], bytes]) -> Target:
    """A verdict of others, rendered where it is one."""

    def read(data: bytes, folder: Path) -> object:
        parse_record("gate.json", data, GateDecision)
        for path in run.iterdir():
            if path.is_file() and path.name != "gate.json":
                (folder / path.name).write_bytes(path.read_bytes())
        (folder / "gate.json").write_bytes(data)
        return report_files(RunFiles(folder))

    return Target("gate.json", ((run / "gate.json").read_bytes(),), read, respelt)


# --- evidence ----------------------------------------------------------------------------------------------------


def _evidence(run: Path, public: Path) -> tuple[Target, ...]:
    key = load_public_key(public)
    log = (run / "audit.jsonl").read_bytes()
    signature = next((run / "signatures").iterdir())

    def history(data: bytes, folder: Path) -> object:
        parsed = parse_log(data)
        logged_of(parsed.entries)
        return history_of(parsed)

    def whole_run(name: str) -> Read:
        def read(data: bytes, folder: Path) -> object:
            for path in run.rglob("*"):
                target = folder / path.relative_to(run)
                target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
            (folder / name).write_bytes(data)
            check_run(folder, [key], require_signature=True)
            return compare(folder, run)

        return read

    def rechained(data: bytes) -> bytes:
        """The chain's hashes made right again, so that the events are reached."""
        lines, head = [], "0" * 64
        for number, line in enumerate(data.splitlines()):
            try:
                entry = json.loads(line)
                entry |= {"previous": head, "sequence": number}
                made = canonical_json(entry)
            except (ValueError, TypeError, RecursionError):
                return data
            head = hashlib.sha256(made).hexdigest()
            lines.append(made)
        return b"\n".join(lines) + b"\n"

    names = ("audit.jsonl", f"signatures/{signature.name}", "attestation.dsse.json", "harden.json", "protocol.yaml")
    return (
        Target("audit.jsonl", (log,), history, rechained),
        Target("signature", (signature.read_bytes(),), lambda data, folder: read_bundle(data).statement),
        Target(
            "attestation",
            ((run / "attestation.dsse.json").read_bytes(),),
            lambda data, folder: read_envelope(data).statement,
        ),
        *(Target(f"verify, {n.split('/')[0]}", ((run / n).read_bytes(),), whole_run(n)) for n in names),
        Target("ledger", (log,), _written("looks.jsonl", lambda path: read_ledger(path, key_id="k")), rechained),
        Target("public key", (public.read_bytes(),), _written("k.pub", load_public_key)),
        Target("private key", (public.with_suffix("").read_bytes(),), _written("k", _signing_key)),
    )


def _signing_key(path: Path) -> object:
    path.chmod(0o600)
    return load_signing_key(path)


# --- models ------------------------------------------------------------------------------------------------------


def _models(folder: Path) -> tuple[Target, ...]:
    from safetensors.torch import save

    network = _network()
    kept = io.BytesIO()
    torch.save(network.state_dict(), kept)
    old = io.BytesIO()
    torch.save(network.state_dict(), old, _use_new_zipfile_serialization=False)
    return (
        Target(
            "checkpoint .pt",
            _half_honest((kept.getvalue(), old.getvalue()), _made(hostile_files.CHECKPOINTS)),
            _written("m.pt", lambda path: load_classifier(path, arch=ARCH)),
        ),
        Target(
            "weights .safetensors",
            _half_honest((save(network.state_dict()),), _made(hostile_files.SAFETENSORS)),
            _written("m.safetensors", lambda path: load_classifier(path, arch=ARCH)),
        ),
        Target("bundle", _made(hostile_files.BUNDLES), _bundle),
        Target("hardened.json", _hardened(folder)[:1], _release(folder, 0)),
        Target("hardened.safetensors", _hardened(folder)[1:], _release(folder, 1)),
    )


@cache
def _network() -> torch.nn.Module:
    from foreign_networks import TinyNet

    torch.manual_seed(0)
    return TinyNet(2)


def _bundle(data: bytes, folder: Path) -> object:
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_bytes(data)
    torch.save({"a": torch.zeros(2)}, folder / "models" / "model.pt")
    return load_classifier(folder)


@cache
def _hardened(folder: Path) -> tuple[bytes, bytes]:
    """`hardened.json` and the weights of a small release."""
    model = tiny_model(folder)
    fusion = FusionRecord("mixed", 0.7, 1.0, 1.0, 0.5, 0.01)
    release = HardenedClassifier(model, copy.deepcopy(model), fusion, torch.zeros(2))
    described = canonical_json(describe_hardened(release)) + b"\n"
    return described, hardened_bytes(release, described)


def _release(folder: Path, which: int) -> Read:
    def read(data: bytes, place: Path) -> object:
        described, weights = _hardened(folder)
        (place / "hardened.json").write_bytes(data if which == 0 else described)
        (place / "hardened.safetensors").write_bytes(data if which == 1 else weights)
        return load_hardened(place, arch=ARCH)

    return read


# --- images ------------------------------------------------------------------------------------------------------


KINDS = {
    "DICOM": ".dcm",
    "DICOM, 3D": "_3d.dcm",
    "NIfTI": ".nii",
    "NIfTI, compressed": ".nii.gz",
    "PNG": ".png",
    "JPEG": ".jpg",
    "TIFF": ".tif",
    "npz": ".npz",
}
REPAIRS = {"PNG": repaired_png, "NIfTI": compressed, "npz": zipped_npz}


def _images() -> tuple[Target, ...]:
    made = {name: make for name, (make, _) in hostile_images.REFUSED.items()} | dict(hostile_images.READ)
    honest = {
        "honest.dcm": image_makers.dicom_file(),
        "honest_3d.dcm": image_makers.dicom_file(np.stack([image_makers.SMOOTH] * 3)),
        "honest.nii": image_makers.nifti_file(),
        "honest.nii.gz": image_makers.zipped(image_makers.nifti_file()),
        "honest.png": image_makers.png_file(image_makers.GREY),
        "honest.jpg": image_makers.jpeg_file(),
        "honest.tif": image_makers.tiff_file(),
        "honest.npz": image_makers.npz_file(),
        "npy in.npz": image_makers.npy(np.zeros((4, 9, 9), np.uint8)),
    }
    hostile = {name: make() for name, make in made.items()}
    found = []
    for kind, suffix in KINDS.items():
        parts = [
            tuple(d for n, d in files.items() if n.endswith(suffix) and len(d) < 200_000) for files in (honest, hostile)
        ]
        seeds = _half_honest(parts[0] or parts[1], parts[1])
        found.append(Target(kind, seeds, _archive if kind == "npz" else _image(kind, suffix), REPAIRS.get(kind)))
    return tuple(found)


def _image(kind: str, suffix: str) -> Read:
    dims = 3 if "NIfTI" in kind or "3D" in kind else 2

    def read(data: bytes, folder: Path) -> object:
        (folder / f"case{suffix}").write_bytes(data)
        with quiet_readers():
            return read_file(folder / f"case{suffix}", dims)

    return read


def _archive(data: bytes, folder: Path) -> object:
    (folder / "a.npz").write_bytes(data)
    listing = list_archive(folder / "a.npz", tiny_protocol(), lambda text: "case", 2**28)
    with Room().file() as hold:
        return listing.read(listing.entries[0], hold) if listing.entries else None
