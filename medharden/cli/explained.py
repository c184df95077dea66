"""`medharden explain`: what a code of a verdict, a reason, a finding or an error means, and what to do."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from medharden.cli.console import marked, out
from medharden.codes import all_codes, code_of

__all__ = ["run_explain"]


def run_explain(name: str | None) -> None:
    """Prints one code, or all of them in one line each.

    Raises:
        ProtocolError: there is no such code.
    """
    if name is None:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("code", no_wrap=True)
        table.add_column("means", overflow="fold")
        for code in all_codes().values():
            table.add_row(code.code, code.means)
        out.show(table, {"codes": [asdict(code) for code in all_codes().values()]})
        return
    code = code_of(name)
    lines = [
        marked("[bold]{}[/]  {}", code.code, code.means),
        marked("[bold]why it matters:[/] {}", code.matters),
        marked("[bold]what to do:[/] {}", code.do),
    ]
    out.show(lines, asdict(code))
