"""The table of codes: what a verdict, a reason, a finding or an error means, and what to do about it."""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from medharden.errors import ProtocolError
from medharden.plain_yaml import parse_yaml

__all__ = ["Code", "all_codes", "code_of", "codes_page"]


@dataclass(frozen=True)
class Code:
    """One code.

    Attributes:
        code: such as `gate.copies`, `endpoint.brier`, `verdict.fail` or `ModelError`.
        means: what it says, in a sentence.
        matters: why it matters to a patient.
        do: what to do.
    """

    code: str
    means: str
    matters: str
    do: str


@cache
def all_codes() -> dict[str, Code]:
    """Every code that is explained, in the table's order."""
    raw = parse_yaml((files("medharden.codes") / "codes.yaml").read_bytes())
    return {code: Code(code, **texts) for code, texts in raw.items()}


def code_of(name: str) -> Code:
    """The code of a name, whatever its case; a verdict's or an error's bare word will do.

    Raises:
        ProtocolError: there is no such code; the nearest ones are named.
    """
    known = {code.lower(): code for code in all_codes()}
    asked = name.strip().lower()
    for spelt in (asked, f"verdict.{asked}", f"endpoint.{asked}"):
        if spelt in known:
            return all_codes()[known[spelt]]
    near = difflib.get_close_matches(asked[:60], known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(known[n] for n in near)}? " if near else ""
    raise ProtocolError(f"there is no code {name[:60]!r}; {hint}`medharden explain` without a code lists all")


def codes_page() -> str:
    """The page of the documentation that holds every code, in the table's order."""
    head = (
        "# Codes\n\nEvery verdict, reason, finding and error has a code. `medharden explain CODE` prints what stands\n"
        "here; `medharden explain` without a code lists them all.\n"
    )
    parts = [
        f"\n## {c.code}\n\n{_wrapped(c.means)}\n\n"
        f"{_wrapped(f'- **Why it matters:** {c.matters}')}\n{_wrapped(f'- **What to do:** {c.do}')}\n"
        for c in all_codes().values()
    ]
    return head + "".join(parts)


def _wrapped(text: str) -> str:
    """A paragraph or an item of a list, for people who read the source."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
