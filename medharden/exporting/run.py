"""One export of a run: the verdict looked at, the form made and held against the composite, then written and logged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from medharden._version import __version__
from medharden.audit import (
    RunFiles,
    audited,
    canonical_json,
    describe_environment,
    digest_bytes,
    write_atomic,
    write_record,
)
from medharden.audit.inventory import is_signed
from medharden.errors import RunError
from medharden.exporting.bundle import bundle_files, opened_bundle
from medharden.exporting.card import card_of
from medharden.exporting.forms import (
    OPSET,
    PAIRED,
    Runner,
    onnx_bytes,
    opened_program,
    opened_script,
    program_bytes,
    script_bytes,
)
from medharden.exporting.graph import Deployed, deployed
from medharden.exporting.halving import halve
from medharden.exporting.pairing import BySize
from medharden.exporting.parity import TOLERANCE, compare, require_parity
from medharden.exporting.quantising import to_int8
from medharden.exporting.standing import Standing, standing_of
from medharden.files import require_plain
from medharden.models import (
    Contract,
    HardenedClassifier,
    contract_fields,
    describe_hardened,
    hardened_bytes,
    open_onnx,
)
from medharden.record import EXPORTS, ExportRecord, Finding, Parity

__all__ = ["FORMS", "export", "made", "metadata_of", "opened"]

FORMS = ("onnx", "pt2", "torchscript", "bundle")
QUANTISED = ("", "int8", "fp16")
_ENDINGS = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".ts.pt", "bundle": "-bundle"}
_OF_TOLERANCE = 0.7  # that weights in half precision may use up on the inputs that they are chosen on
_WRITERS: dict[str, Callable[[Deployed, tuple[int, ...], Mapping[str, str]], bytes]] = {
    "onnx": onnx_bytes,
    "pt2": program_bytes,
    "torchscript": script_bytes,
}


@dataclass(frozen=True)
class _Source:
    """What an export is made of: the composite in hand and its digests."""

    model: HardenedClassifier
    contract: Contract
    hardened: str
    description: str
    standing: Standing


def export(
    model: HardenedClassifier,
    run: Path,
    *,
    to: str,
    quantise: str = "",
    ungated: bool = False,
    supersede: bool = False,
) -> tuple[Path, ExportRecord]:
    """Writes a run's composite in another form below `exports/`, with a record and a card beside it.

    Args:
        model: of `load_hardened(run)`, on the CPU.
        run: the run directory, whose log is continued.
        to: `onnx`, `pt2`, `torchscript` or `bundle`.
        quantise: `int8` (of `onnx` alone), `fp16`, or empty.
        ungated: export weights that have no PASS; file name, metadata and card then say so.
        supersede: export from a signed run, whose signatures then speak of an earlier state.

    Returns:
        The artefact's path, and its record.

    Raises:
        RunError: these weights have no PASS, the run is signed, the model is not the one that lies there, or the form
            and quantisation don't go together.
        ModelError: the network can't be written so, or the form answers otherwise than the composite. Nothing is left.
        OutputError: the run directory can't be written to.
    """
    _require_form(to, quantise)
    if not run.is_dir():
        raise RunError(f"{run.name} is no run directory; expected the folder that `medharden harden` wrote")
    require_plain(run)
    if is_signed(run) and not supersede:
        raise RunError(
            f"{run.name} is signed, and its signatures would not hold what is exported now: export before signing, or "
            "`export --supersede` and have it signed anew (`sign --supersede`)"
        )
    with audited(run, "export", form=to, quantised=quantise, ungated=ungated) as log:
        source = _source(model, RunFiles(run))
        if not source.standing.passed and not ungated:
            raise RunError(
                f"{run.name} is not exported: {source.standing.lacking}. Only weights with a PASS leave; --ungated "
                "exports them all the same and marks file name, metadata and card"
            )
        said = metadata_of(source.standing, source, to, quantise)
        files, parity = made(model, to, quantise, said, _model_card(RunFiles(run), source.standing))
        stem = f"hardened{'' if source.standing.passed else '.UNGATED'}{f'.{quantise}' if quantise else ''}"
        name = f"{EXPORTS}/{stem}{_ENDINGS[to]}"
        written = {name + below: write_atomic(run / (name + below), data) for below, data in files.items()}
        record = ExportRecord(
            form=to,
            quantised=quantise,
            files=written,
            hardened=source.hardened,
            description=source.description,
            protocol=source.contract.protocol,
            gate=source.standing.gate,
            verdict=source.standing.verdict,
            gated=source.standing.passed,
            opset=OPSET if to == "onnx" else 0,
            parity=parity,
            environment=describe_environment("cpu", torch.get_num_threads()),
            exported=datetime.now(UTC).isoformat(timespec="seconds"),
            findings=_findings(source.standing, quantise, parity),
        )
        card = card_of(record, model, source.contract, source.standing, Path(name).name)
        beside = {
            f"{name}.json": write_record(run / f"{name}.json", record),
            f"{name}.md": write_atomic(run / f"{name}.md", card.encode()),
        }
        log.append("export.recorded", form=to, gated=record.gated, files={**written, **beside})
    return run / name, record


def made(
    model: HardenedClassifier, to: str, quantise: str, metadata: Mapping[str, str], card: str = ""
) -> tuple[dict[str, bytes], Parity]:
    """The files of a form, by what follows the artefact's name, and how it compares with the composite.

    Args:
        model: the composite.
        to: the form.
        quantise: `int8`, `fp16`, or empty.
        metadata: what the artefact says of itself.
        card: Markdown for a bundle's `docs/README.md`.

    Raises:
        ModelError: the network can't be written so, or answers otherwise then.
    """
    contract = _contract(model)
    shape, graph = contract.shape, deployed(model, paired=to in PAIRED)
    if isinstance(graph.paths, BySize):
        most = "" if to == "pt2" else f", up to {BySize.most} cases"
        metadata = {**metadata, "medharden.passes": f"one for both paths{most}"}
    if quantise == "fp16":
        halved, weights = halve(graph, lambda: compare(model, graph, shape).share, _OF_TOLERANCE * TOLERANCE["fp16"])
        metadata = {**metadata, "medharden.half_precision": f"{halved} of {weights} weights"}
    if to == "bundle":
        files = bundle_files(graph, model, contract, metadata, card)
        runner = opened_bundle(files, len(contract.classes), multilabel=model.multilabel)
    else:
        data = _WRITERS[to](graph, shape, metadata)
        if quantise == "int8":
            data = to_int8(data)
        files, runner = {"": data}, opened(to, data)
    parity = compare(model, runner, shape)
    require_parity(parity, to, quantise)
    return files, parity


def opened(form: str, data: bytes) -> Runner:
    """A form's bytes, made here, to be run."""
    if form == "onnx":
        return open_onnx(data, "the exported model")
    return opened_program(data) if form == "pt2" else opened_script(data)


def metadata_of(standing: Standing, source: _Source, to: str, quantise: str) -> dict[str, str]:
    """What an artefact says of itself, as text by key."""
    contract = source.contract
    return {
        "medharden.version": __version__,
        "medharden.form": to,
        "medharden.quantised": quantise or "no",
        "medharden.opset": str(OPSET) if to == "onnx" else "none",
        "medharden.gated": "yes" if standing.passed else "UNGATED",
        "medharden.verdict": standing.verdict or "none",
        "medharden.gate": standing.gate or "none",
        "medharden.hardened": source.hardened,
        "medharden.description": source.description,
        "medharden.protocol": contract.protocol,
        "medharden.fusion": source.model.fusion.mode,
        "medharden.task": "multilabel" if source.model.multilabel else "multiclass",
        "medharden.contract": canonical_json(contract_fields(contract)).decode(),
        "medharden.graph": canonical_json(_signature(contract, multilabel=source.model.multilabel)).decode(),
    }


def _signature(contract: Contract, *, multilabel: bool) -> dict[str, Any]:
    """Name, type, axes and range of what goes in and comes out; N is free."""
    k = len(contract.classes)
    shares = {"dtype": "float32", "shape": ["N", k], "range": [0, 1]}
    return {
        "inputs": {"inputs": {"dtype": "float32", "shape": ["N", *contract.shape], "range": [0, 1]}},
        "outputs": {
            "logits": {"dtype": "float32", "shape": ["N", k]},
            "probabilities": shares,
            "answer": {"dtype": "int64", "shape": ["N", k] if multilabel else ["N"]},
            "refer": {"dtype": "bool", "shape": ["N"]},
        },
    }


def _source(model: HardenedClassifier, files: RunFiles) -> _Source:
    """The model in hand, held against what lies there and what was decided on."""
    contract = _contract(model)
    description = canonical_json(describe_hardened(model)) + b"\n"
    weights = digest_bytes(hardened_bytes(model, description))
    if weights != files.digest("hardened.safetensors") or digest_bytes(description) != files.digest("hardened.json"):
        raise RunError(f"the model in hand is not the one that lies in {files.run.name}; was a file replaced?")
    return _Source(model, contract, weights, digest_bytes(description), standing_of(files))


def _model_card(files: RunFiles, standing: Standing) -> str:
    """The run's own card; where `medharden report` wrote none yet, what is missing is said."""
    text = "# Hardened model\n\n`medharden report` writes the model card of the run that this bundle is from.\n"
    if files.has("model-card.md"):
        text = files.data("model-card.md").decode("utf-8", "replace")
    mark = "" if standing.passed else f"> **UNGATED: these weights have no PASS.** {standing.lacking}.\n\n"
    front = text.split("---\n", 2) if text.startswith("---\n") else ["", "", text]  # metadata stay in front
    head = f"---\n{front[1]}---\n" if front[1] else ""
    return f"{head}{mark}{front[2]}"


def _contract(model: HardenedClassifier) -> Contract:
    if model.contract is None:
        raise RunError(
            "hardened.json doesn't say what the model takes: the run was made by an earlier medharden; harden again"
        )
    return model.contract


def _require_form(to: str, quantise: str) -> None:
    if to not in FORMS or quantise not in QUANTISED:
        raise RunError(f"expected one of {', '.join(FORMS)}, and int8 or fp16 or neither; got {to!r} and {quantise!r}")
    if quantise == "int8" and to != "onnx":
        raise RunError(f"int8 is made for onnx alone, by ONNX Runtime; {to} can be had in single precision or as fp16")


def _findings(standing: Standing, quantise: str, parity: Parity) -> tuple[Finding, ...]:
    found = []
    if not standing.passed:
        message = f"Exported without a PASS: {standing.lacking}."
        found.append(Finding("export.ungated", "critical", message))
    if quantise:
        message = (
            f"Quantised to {quantise}: another model than the one decided on, and to be evaluated by itself. On drawn "
            f"inputs a logit differs by up to {parity.largest:.3g}."
        )
        found.append(Finding("export.quantised", "warning", message))
    return tuple(found)
