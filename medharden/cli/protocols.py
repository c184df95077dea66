"""`medharden protocol list | show | validate`."""

from __future__ import annotations

from dataclasses import asdict

from rich.syntax import Syntax
from rich.table import Table

from medharden.cli.console import marked, out
from medharden.protocol import load_protocol, protocol_yaml, shipped_protocols
from medharden.strength import Strength, strength
from medharden.text import neutral_lines

__all__ = ["run_list", "run_show", "run_validate"]


def run_list() -> None:
    """Prints the shipped protocols, one a row."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("protocol", no_wrap=True)  # what is typed is never cut
    table.add_column("threat", no_wrap=True)
    table.add_column("reasons", no_wrap=True)
    table.add_column("title", overflow="fold")
    machine = []
    for name in shipped_protocols():
        protocol = load_protocol(name)
        threat = f"{protocol.threat.norm} {protocol.threat.eps:g} {protocol.threat.unit}"
        table.add_row(name, threat, "given" if protocol.margins_justified else "lacking", protocol.title)
        machine.append({"name": name, "title": protocol.title, "digest": protocol.digest, "threat": threat})
    lines: list[Table | str] = [
        table,
        "reasons: whether each margin has its clinical justification; `medharden protocol new` writes yours",
    ]
    out.show(lines, {"protocols": machine})


def run_show(name: str) -> None:
    """Prints a protocol with its defaults filled in."""
    protocol = load_protocol(name)
    fields = protocol.model_dump(mode="json")
    text = neutral_lines(protocol_yaml(protocol))
    out.say(marked("[dim]# digest {}[/]", protocol.digest))
    out.show(Syntax(text, "yaml", background_color="default", word_wrap=True), fields | {"digest": protocol.digest})


def run_validate(name: str) -> None:
    """Prints that a protocol is valid, its digest, and what it could and couldn't show."""
    protocol = load_protocol(name)
    unjustified = "" if protocol.margins_justified else " · its margins carry no clinical justification"
    line = marked("[green]valid[/] {} · digest {}{}", protocol.name, protocol.digest, unjustified)
    machine = {"valid": True, "name": protocol.name, "digest": protocol.digest}
    judged = strength(protocol)
    machine |= {"margins_justified": protocol.margins_justified, "strength": asdict(judged)}
    out.show([line, *strength_lines(judged)], machine)


def strength_lines(judged: Strength) -> list[str]:
    """What a protocol could show and what it leaves open, a sentence a line."""
    lines = ["a PASS says:", *(f"  · {said}" for said in judged.shows)]
    return [*lines, "it does not say, or can't be had:", *(f"  · {said}" for said in judged.leaves_open)]
