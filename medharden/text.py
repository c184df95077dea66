"""Text from files of others, made safe to be shown: nothing in it steers a terminal, turns its letters or hides.

Whatever is printed or rendered passes through here: the console, the page, the card, the build's summary and XML.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["counted", "escaped_json", "neutral", "neutral_lines"]

_SIGN = "\N{REPLACEMENT CHARACTER}"
# Letters and marks by category, of which nothing is seen. https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point
_UNSEEN = frozenset(map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, 0xFFA0)))
_SELECTORS = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
_SELECTABLE = frozenset(("So", "Sm", "Lo"))  # what has more than one shape: emoji, signs, ideographs
_JOINER, _NON_JOINER = "\N{ZERO WIDTH JOINER}", "\N{ZERO WIDTH NON-JOINER}"
_VIRAMA = 9  # the combining class
_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))  # of the skin of emoji
_IN_JSON = re.compile(r"[^\x20-\x7e]")


def neutral(text: str) -> str:
    """One line, in which each control character, direction override or invisible sign is replaced by U+FFFD.

    Line breaks and tabs become blanks; other blanks, such as those that hold a number together, stay. So do letters,
    marks and emoji of all scripts, with what shapes them there: a variation selector behind a sign that has more than
    one shape, a joiner where a script is written with it or between emoji.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    around = zip(f" {shown}", shown, f"{shown[1:]} ", strict=False)
    return "".join(sign if _visible(before, sign, after) else _SIGN for before, sign, after in around)


def neutral_lines(text: str) -> str:
    """The same, of a text whose line breaks are meant."""
    return "\n".join(neutral(line) for line in text.replace("\r\n", "\n").split("\n"))


def counted(number: int, noun: str) -> str:
    """A number with its noun in the right form: `1 case`, `1,024 cases`; of nouns that take an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def escaped_json(text: str) -> str:
    """JSON whose texts say the same, with all that `neutral` would replace written as escapes."""

    def escape(match: re.Match[str]) -> str:
        if neutral(match[0]) == match[0] or match[0] == "\n":
            return match[0]
        units = match[0].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))

    return _IN_JSON.sub(escape, text)


def _visible(before: str, sign: str, after: str) -> bool:
    if sign in _SELECTORS:
        if before in _UNSEEN or before == _SIGN:
            return False
        return before in "#*0123456789" or unicodedata.category(before) in _SELECTABLE
    if sign in (_JOINER, _NON_JOINER):
        return _shapes(before, sign, after)
    if sign in _UNSEEN:
        return False
    return sign.isprintable() or unicodedata.category(sign) == "Zs"


def _shapes(before: str, joiner: str, after: str) -> bool:
    """Whether a joiner is part of the spelling: UAX 31, section 2.3, and the sequences of UTS 51."""
    if unicodedata.combining(before) == _VIRAMA:
        return True
    if unicodedata.bidirectional(before) == unicodedata.bidirectional(after) == "AL":
        return True
    picture = before in _SELECTORS or before in _TONES or unicodedata.category(before) == "So"
    return joiner == _JOINER and picture and unicodedata.category(after) == "So"
