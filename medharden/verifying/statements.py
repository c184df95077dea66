"""The gate's verdict and the hardened model's provenance as in-toto statements, from the records alone.

Sources: in-toto test result predicate v0.1; SLSA provenance v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medharden.audit import RunFiles
from medharden.audit.envelopes import STATEMENT
from medharden.record import Endpoint, Environment, GateDecision, HardenRecord, Verdict

__all__ = ["PROVENANCE", "TEST_RESULT", "provenance_statement", "verdict_statement"]

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
_BUILD_TYPE = "urn:medharden:harden:v1"
_RELEASED = ("hardened.safetensors", "hardened.json")
_DECIDED_ON = ("protocol.yaml", "cohort.json", "harden.json", "evaluation.json", "cases.parquet", "gate.json")


def verdict_statement(files: RunFiles, digests: Mapping[str, str]) -> dict[str, Any]:
    """The verdict about the released weights.

    `result` knows no INCONCLUSIVE: everything but PASS is FAILED, and `medharden` holds the verdict itself.

    Args:
        files: the run directory.
        digests: name to SHA-256 of its files.

    Raises:
        RunError: there is no readable verdict.
    """
    decision = files.record("gate.json", GateDecision)
    passed = decision.verdict is Verdict.PASS
    return _statement(
        TEST_RESULT,
        _named(digests, _RELEASED),
        {
            "result": "PASSED" if passed else "FAILED",
            "configuration": _named(digests, _DECIDED_ON),
            "passedTests": _names(decision.endpoints, passing=True),
            "warnedTests": _names(decision.subgroups, passing=False),
            "failedTests": _names(decision.endpoints, passing=False),
            "medharden": {
                "verdict": decision.verdict.value,
                "reasons": list(decision.reasons),
                "decided": decision.decided,
                "protocol": {"name": decision.protocol_name, "digest": decision.protocol},
                "margins_justified": decision.margins_justified,
            },
        },
    )


def provenance_statement(files: RunFiles, digests: Mapping[str, str]) -> dict[str, Any]:
    """From what, by what and where the released weights were made.

    Args:
        files: the run directory.
        digests: name to SHA-256 of its files.

    Raises:
        RunError: there is no readable record of hardening.
    """
    harden = files.record("harden.json", HardenRecord)
    protocol = files.protocol()
    environment = harden.environment
    original = {"name": "original model", "digest": {"sha256": harden.original.file}}
    return _statement(
        PROVENANCE,
        _named(digests, _RELEASED),
        {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {"protocol": {"name": protocol.name, "digest": harden.protocol}},
                "internalParameters": {
                    "seed": harden.seed,
                    "device": environment.device,
                    "threads": environment.threads,
                },
                "resolvedDependencies": [
                    original | {"annotations": {"state": harden.original.state, "arch": harden.original.arch}},
                    *_named(digests, ("cohort.json", "protocol.yaml")),
                    *_software(environment),
                ],
            },
            "runDetails": {
                "builder": {"id": f"urn:medharden:{environment.medharden}", "version": _versions(environment)},
                "metadata": {
                    "invocationId": digests.get("harden.json", ""),
                    "startedOn": harden.started,
                    "finishedOn": harden.finished,
                },
                "byproducts": _named(digests, ("harden.json",)),
            },
        },
    )


def _statement(kind: str, subject: list[dict[str, Any]], predicate: dict[str, Any]) -> dict[str, Any]:
    return {"_type": STATEMENT, "subject": subject, "predicateType": kind, "predicate": predicate}


def _named(digests: Mapping[str, str], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": digests[name]}} for name in names if name in digests]


def _names(endpoints: tuple[Endpoint, ...], *, passing: bool) -> list[str]:
    return [e.name for e in endpoints if (e.verdict is Verdict.PASS) is passing]


def _software(environment: Environment) -> list[dict[str, Any]]:
    code = {"digest": {"sha256": environment.code}} if environment.code else {}
    ours = {"name": "medharden", "uri": f"pkg:pypi/medharden@{environment.medharden}"} | code
    others = sorted(environment.packages.items())
    return [ours, *({"name": n, "uri": f"pkg:pypi/{n}@{v}"} for n, v in others if v[:1].isdigit())]


def _versions(environment: Environment) -> dict[str, str]:
    return {"medharden": environment.medharden, "python": environment.python, "platform": environment.platform}
