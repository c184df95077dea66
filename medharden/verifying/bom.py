"""The hardened model's bill of materials, CycloneDX 1.6: its ancestor, data and software, from the records alone.

Source: CycloneDX 1.6 (ECMA-424), `machine-learning-model` components with `modelCard` and `pedigree`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medharden.audit import AuditLog, RunFiles, canonical_json, exclusive, rendering_stack, write_atomic
from medharden.audit.inventory import file_digests
from medharden.audit.log import LOG
from medharden.protocol import Protocol
from medharden.record import CohortRecord, Endpoint, Environment, Evaluation, GateDecision, HardenRecord
from medharden.text import escaped_json

__all__ = ["BOM", "bill_of_materials", "bom_bytes", "write_bom"]

BOM = "bom.cdx.json"
_MODEL, _ORIGINAL, _DATA = "hardened-model", "original-model", "cohort"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:medharden:bom")
_LIMITATIONS = (
    "Robust accuracy under the listed attacks is an upper bound: a stronger attack may find more.",
    "Non-inferiority holds against this original, on this test split, with its population, sites and scanners.",
    "No clinical benefit, safety or fitness for use is claimed.",
)


def write_bom(run: Path) -> Path:
    """Writes `bom.cdx.json` beside the records; the same records give the same bytes.

    Raises:
        RunError: a record is missing or unreadable.
        OutputError: the directory can't be written to.
    """
    with exclusive(run):
        digest = write_atomic(run / BOM, bom_bytes(RunFiles(run)))
        AuditLog(run / LOG).append("bom.recorded", files={BOM: digest}, stack=rendering_stack())
    return run / BOM


def bom_bytes(files: RunFiles) -> bytes:
    """The document as it is written.

    Raises:
        RunError: a record is missing or unreadable.
    """
    return escaped_json(canonical_json(bill_of_materials(files)).decode("utf-8")).encode() + b"\n"


def bill_of_materials(files: RunFiles) -> dict[str, Any]:
    """The document.

    Raises:
        RunError: a record is missing or unreadable.
    """
    harden = files.record("harden.json", HardenRecord)
    cohort = files.record("cohort.json", CohortRecord)
    evaluation = files.record("evaluation.json", Evaluation)
    decision = files.record("gate.json", GateDecision)
    protocol = files.protocol()
    digests = file_digests(files)
    libraries = _libraries(harden.environment)
    model = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": f"{harden.original.arch} hardened under {protocol.name}",
        "version": harden.hardened[:12],
        "description": protocol.intended_use,
        "hashes": _sha256(harden.hardened),
        "pedigree": {"ancestors": [_original(harden)], "notes": "the clean path equals the ancestor bit for bit"},
        "modelCard": _card(protocol, harden, evaluation, decision),
        "properties": _properties(digests, decision),
    }
    refs = [library["bom-ref"] for library in libraries]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, harden.hardened + decision.evaluation + decision.decided)}",
        "version": 1,
        "metadata": {
            "timestamp": decision.decided or harden.finished,
            "tools": {
                "components": [{"type": "application", "name": "medharden", "version": harden.environment.medharden}]
            },
            "component": model,
        },
        "components": [_data(cohort, protocol, digests), *libraries],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [_DATA, *refs]},
            *({"ref": ref} for ref in (_DATA, *refs)),
        ],
    }


def _original(harden: HardenRecord) -> dict[str, Any]:
    original = harden.original
    return {
        "type": "machine-learning-model",
        "bom-ref": _ORIGINAL,
        "name": f"{original.source}:{original.arch}",
        "version": original.file[:12],
        "hashes": _sha256(original.file),
        "properties": [
            {"name": "medharden:state", "value": original.state},
            {"name": "medharden:parameters", "value": str(original.parameters)},
        ],
    }


def _card(protocol: Protocol, harden: HardenRecord, evaluation: Evaluation, decision: GateDecision) -> dict[str, Any]:
    shape = f"{harden.original.channels} channels, {harden.original.dims} dimensions, in [0, 1]"
    metrics = [_metric(e) for e in (*decision.endpoints, *decision.subgroups)]
    metrics += [
        {"type": kind, "value": f"{value:.6g}", "slice": subject.name}
        for subject in evaluation.subjects
        for kind, value in (
            ("clean accuracy", subject.clean_accuracy),
            ("accuracy under attack", subject.robust_accuracy),
        )
    ]
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image classification",
            "architectureFamily": harden.original.source,
            "modelArchitecture": harden.original.arch,
            "datasets": [{"ref": _DATA}],
            "inputs": [{"format": f"image: {shape}"}],
            "outputs": [{"format": f"logits of {', '.join(evaluation.classes)}"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {
            "useCases": [protocol.intended_use],
            "technicalLimitations": [*_LIMITATIONS, f"Threat model: {evaluation.threat}."],
        },
    }


def _metric(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "type": f"{endpoint.kind}: {endpoint.name}",
        "value": f"{endpoint.estimate:.6g}",
        "slice": f"test split, {endpoint.n} cases of {endpoint.patients} patients; {endpoint.verdict.value}",
        "confidenceInterval": {"lowerBound": f"{endpoint.lower:.6g}", "upperBound": f"{endpoint.upper:.6g}"},
    }


def _properties(digests: Mapping[str, str], decision: GateDecision) -> list[dict[str, str]]:
    held = {"medharden:verdict": decision.verdict.value, "medharden:protocol": decision.protocol}
    names = ("hardened.json", "harden.json", "evaluation.json", "cases.parquet", "gate.json")
    held |= {f"medharden:sha256:{name}": digests[name] for name in names if name in digests}
    return [{"name": name, "value": value} for name, value in held.items()]


def _data(cohort: CohortRecord, protocol: Protocol, digests: Mapping[str, str]) -> dict[str, Any]:
    splits = {split: len(cohort.split(split)) for split in ("train", "val", "test")}
    counts = ", ".join(f"{split} {n}" for split, n in splits.items())
    patients = len({case.patient for case in cohort.cases})
    return {
        "type": "data",
        "bom-ref": _DATA,
        "name": f"cohort of {protocol.name}",
        "version": digests["cohort.json"][:12],
        "hashes": _sha256(digests["cohort.json"]),
        "data": [
            {
                "type": "dataset",
                "name": "cohort.json",
                "description": f"{len(cohort.cases)} cases of {patients} patients ({counts}); pseudonyms, no images",
                "sensitiveData": ["pseudonymised patient data"],
                "classification": "confidential",
            }
        ],
    }


def _libraries(environment: Environment) -> list[dict[str, Any]]:
    versions = {"medharden": environment.medharden} | dict(sorted(environment.packages.items()))
    components = []
    for name, version in versions.items():
        if version[:1].isdigit():
            purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
            components.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    python = {"type": "platform", "bom-ref": "python", "name": "Python", "version": environment.python}
    return [*components, python]


def _sha256(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]
