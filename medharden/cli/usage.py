"""Errors of usage, which quote what was typed: made safe to be shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from medharden.text import neutral_lines

__all__ = ["Commands"]


class Commands(TyperGroup):
    """The root command, through which all errors of usage pass on their way to typer's printing."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """Parses what stands before a command."""
        with _safe_message():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        """Parses the rest, and runs the command."""
        with _safe_message():
            return super().invoke(ctx)


@contextmanager
def _safe_message() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        said = getattr(error, "format_message", None)  # of click's errors, which typer brings under several names
        if said is not None:
            message = neutral_lines(said()).replace("Value error, ", "")
            message += " Did you mean 'approval'?" if "'approved' is not one of" in message else ""
            error.format_message = lambda: message  # type: ignore[attr-defined]
        raise
