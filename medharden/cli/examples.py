"""Two examples for each command's `--help`; each is a line that can be typed, with your own names."""

from __future__ import annotations

import typer

__all__ = ["EXAMPLES", "with_examples"]

EXAMPLES: dict[str, tuple[str, str]] = {
    "harden": (
        "medharden harden model.pt --data xrays --protocol chest-xray-binary --out run",
        "medharden harden model.pt --data xrays --protocol mine.yaml --device cuda --dry-run",
    ),
    "inspect": (
        "medharden inspect model.pt --data xrays --protocol mine.yaml",
        "medharden inspect --data xrays --protocol mine.yaml --locate 6239d3baa89a9cfc",
    ),
    "evaluate": (
        "medharden evaluate run --data xrays --model model.pt",
        "medharden evaluate run --data xrays --model model.pt --ledger looks.jsonl --pictures",
    ),
    "predict": (
        "medharden predict run scan.dcm",
        "medharden predict run first.png second.png --csv",
    ),
    "export": (
        "medharden export run --to onnx",
        "medharden export run --to onnx --quantise int8",
    ),
    "attack": (
        "medharden attack run --data xrays --write attacked",
        "medharden attack model.pt --data xrays --write attacked --split val --case 6239d3baa89a9cfc",
    ),
    "gate": (
        "medharden gate run --protocol mine.yaml",
        "medharden gate run --check --format markdown",
    ),
    "report": (
        "medharden report run",
        "medharden report run --out for-the-board",
    ),
    "frontier": (
        "medharden frontier run",
        "medharden frontier run --out frontier.png",
    ),
    "demo": (
        "medharden demo",
        "medharden demo --out somewhere --quiet",
    ),
    "compare": (
        "medharden compare old.csv new.csv",
        "medharden compare old.csv new.csv --json",
    ),
    "keygen": (
        "medharden keygen ~/.keys/quality",
        "medharden keygen ~/.keys/quality --json",
    ),
    "sign": (
        "medharden sign run --key ~/.keys/quality --name 'A. Example' --role 'quality manager' --meaning approval "
        "--reason 'release 2.1'",
        "medharden sign run --key ~/.keys/clinic --name 'B. Example' --role radiologist --meaning review "
        "--reason 'margins read'",
    ),
    "verify": (
        "medharden verify run --key quality.pub --require-signature",
        "medharden verify run --model model.pt --data xrays",
    ),
    "diff": (
        "medharden diff run-1 run-2",
        "medharden diff run-1 run-2 --json",
    ),
    "bench": (
        "medharden bench model.pt --data xrays --protocol mine.yaml",
        "medharden bench model.pt --data xrays --device cuda --json",
    ),
    "doctor": (
        "medharden doctor",
        "medharden doctor --json",
    ),
    "explain": (
        "medharden explain INCONCLUSIVE",
        "medharden explain attack.black_box_stronger",
    ),
    "cache list": (
        "medharden cache list ~/.cache/medharden",
        "medharden cache list ~/.cache/medharden --json",
    ),
    "cache remove": (
        "medharden cache remove ~/.cache/medharden",
        "medharden cache remove ~/.cache/medharden 3f2a9c",
    ),
    "protocol new": (
        "medharden protocol new --data xrays --model model.pt --out mine.yaml",
        "medharden protocol new --data xrays --out mine.yaml --yes",
    ),
    "protocol list": (
        "medharden protocol list",
        "medharden protocol list --json",
    ),
    "protocol show": (
        "medharden protocol show default",
        "medharden protocol show mine.yaml --json",
    ),
    "protocol validate": (
        "medharden protocol validate mine.yaml",
        "medharden protocol validate chest-xray-binary --json",
    ),
    "protocol plan": (
        "medharden protocol plan mine.yaml --data xrays",
        "medharden protocol plan default --cases 1200 --positives 400 --discordance 0.03",
    ),
}
"""By a command's full name; those of commands that are not installed are left alone."""


def with_examples(app: typer.Typer, before: str = "") -> None:
    """Gives each command, and those of its groups, its examples as an epilogue."""
    for command in app.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        if lines := EXAMPLES.get(f"{before}{name}"):
            command.epilog = "\n\n".join(("Examples:", *lines))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            with_examples(group.typer_instance, f"{before}{group.name} " if group.name else before)
