"""Text from files of others, made safe to be shown: nothing in it steers a terminal or turns its letters around."""

from __future__ import annotations

__all__ = ["neutral"]


def neutral(text: str) -> str:
    """One line in which each control character, direction override or invisible sign is replaced by U+FFFD."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
