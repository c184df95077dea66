"""The card of an exported model: what it is, whether it passed, what it takes and gives, and how it is checked."""

from __future__ import annotations

from medharden.exporting.standing import Standing
from medharden.models import Contract, HardenedClassifier
from medharden.record import ExportRecord
from medharden.text import neutral

__all__ = ["card_of"]

_CALLS = {
    "onnx": (
        "import numpy as np\nimport onnxruntime\n\nsession = onnxruntime.InferenceSession({name!r})\n"
        "outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, {{'inputs': inputs}})))"
    ),
    "pt2": "import torch\n\noutputs = torch.export.load({name!r}).module()(inputs)",
    "torchscript": "import torch\n\noutputs = torch.jit.load({name!r})(inputs)",
    "bundle": "python -m monai.bundle run --config_file configs/inference.json --bundle_root .",
}


def card_of(record: ExportRecord, model: HardenedClassifier, contract: Contract, standing: Standing, name: str) -> str:
    """The card as Markdown.

    Args:
        record: of the export.
        model: the composite.
        contract: what it takes and answers.
        standing: what the gate said.
        name: of the artefact.
    """
    quantised = f", quantised to {record.quantised}" if record.quantised else ""
    parity = record.parity
    language = "bash" if record.form == "bundle" else "python"
    what = "findings" if model.multilabel else "classes"
    k, shape = len(contract.classes), ", ".join(map(str, contract.shape))
    answer = f"(N, {k}) 0 or 1, whether each finding is there" if model.multilabel else "(N,) index of the class"
    lines = [
        f"# {neutral(name)}",
        "",
        *_mark(record, standing),
        f"A hardened classifier as {record.form}{quantised}, exported by medharden {record.environment.medharden}.",
        "",
        "| | |",
        "|---|---|",
        f"| Verdict of the gate on these weights | {record.verdict or 'none'} |",
        f"| Weights, `hardened.safetensors` | `{record.hardened}` |",
        f"| Description, `hardened.json` | `{record.description}` |",
        f"| Protocol | `{record.protocol}` |",
        f"| Decision, `gate.json` | `{record.gate or 'none'}` |",
        *(f"| `{file}` | `{digest}` |" for file, digest in record.files.items()),
        f"| Fusion | {model.fusion.mode} |",
        f"| ONNX opset | {record.opset or 'none'} |",
        f"| Against the composite in PyTorch | largest difference of a logit {parity.largest:.3g} "
        f"(logits up to {parity.scale:.3g}), "
        f"{parity.answers} of {parity.cases} answers and {parity.referrals} referrals changed, on drawn inputs |",
        "",
        "## Input",
        "",
        f"`inputs`: (N, {shape}) float32 in [0, 1], N as you like. Normalisation is inside.",
        "How a file becomes such an input is the view below; `medharden.read_case` and `medharden predict` do it, and",
        "another way to read files is another model in effect: hold it against them.",
        "",
        "```json",
        contract.input.model_dump_json(indent=1),
        "```",
        "",
        "## Output",
        "",
        f"The {what} are, in this order: {', '.join(neutral(c) for c in contract.classes)}.",
        "",
        f"- `logits`: (N, {k}) float32",
        f"- `probabilities`: (N, {k}) float32",
        f"- `answer`: {answer}, under the decision rule {neutral(contract.decision)}",
        "- `refer`: (N,) true where a reader is told to look"
        + ("" if model.fusion.mode == "guarded" else " (never, in this mode)"),
        "",
        f"```{language}",
        _CALLS[record.form].format(name=name),
        "```",
        "",
        "The gate decided on the composite in PyTorch. This file is another program:",
        "`medharden evaluate RUN --artefact` answers the test split with it, and",
        "`medharden gate RUN --artefact` decides on it.",
        "",
    ]
    return "\n".join(lines)


def _mark(record: ExportRecord, standing: Standing) -> list[str]:
    if record.gated:
        return []
    return [f"> **UNGATED: these weights have no PASS.** {neutral(standing.lacking)}. Not for use on patients.", ""]
