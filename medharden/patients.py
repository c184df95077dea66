"""Who is the same patient, whichever way an identifier is written: one rule for all that names patients.

`patient_identity` gives an identifier's one form. Two that have the same form are one patient, in splits, in checks
and under one pseudonym:

    Unicode forms    composed or not, full width, superscripts, digits of any script (NFKC, then Nd to 0 to 9)
    case             folded, so that `STRASSE` is `Straße`
    blanks           around and inside, of any width; also controls and what is never seen: zero-width characters,
                     soft hyphens, variation selectors, marks of direction
    dashes           any of them is `-`; quotes and `=` around (`'0017`, `="0017"`) are what spreadsheets leave
    numbers          `17`, `0017`, `+17`, `17.0`, `17,0`, `1.7e1`
    no name          `nan`, `none`, `null`, `unknown`, `ANONYMOUS`, `n/a`, `-`, `-1`, blank: as if nothing was said

Where a hospital has both `0017` and `17` as different people, they are taken for one. That costs keeping them in one
split and counting them once; to take one person for two could put the same person into training and test.

Not merged, since they may well be two people, but kept in one split where splits are made, and counted in a finding:
identifiers that differ in punctuation, in accents, in zeros before a number (`P007`, `P7`), or in letters and digits
that look alike, as a Latin and a Cyrillic A do, or O and 0 (`likeness`). Neither merged nor told are other names for
one person: an identifier typed wrongly, separators of thousands, the numbers of two hospitals.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["ZERO", "folded", "patient_identity"]

# Default_Ignorable_Code_Point of Unicode 15.1 (DerivedCoreProperties.txt), which unicodedata does not have
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_BLANK = "\u2800"  # a Braille pattern without dots, which shows as a blank and is none to Unicode
_MINUS = "\u2212"
_AROUND = "'\"=`\u2018\u2019\u201c\u201d\u201e"
_NUMBER = re.compile(r"([+-]?)(?=[.,]?[0-9])([0-9]*)(?:[.,]([0-9]*))?(?:e([+-]?)0*([0-9]{1,6}))?")
_LONGEST_WRITTEN_OUT = 40
_WORDS_FOR_NONE = """
    na nan nat none null nil unk unknown unnamed noname undefined unspecified missing notavailable notapplicable
    anon anonym anonymous anonymized anonymised anonymouspatient anonymizedpatient anonymisedpatient deidentified
    redacted removed nopatient nopatientid unknownpatient unbekannt inconnu anonyme desconocido
"""
_NO_NAME = frozenset(_WORDS_FOR_NONE.split())
ZERO = "0"
_PASSES = 4  # of the fold until nothing changes; Unicode needs two


def patient_identity(text: str) -> str:
    """The one form of a patient's identifier, however it is written; "" where it names nobody.

    A number that is zero gives "0", of which `name_patients` says whether it names somebody. The form of a form is
    itself.

    Args:
        text: as a manifest, a header or a folder has it.
    """
    plain = folded(text).strip(_AROUND)
    number = _NUMBER.fullmatch(plain)
    if number is not None:
        written = _written(*number.groups(""))
        return "" if written == "-1" else written
    bare = "".join(c for c in plain if c.isalnum())
    return "" if not bare or bare in _NO_NAME else plain


def folded(text: str) -> str:
    """Without case, blanks and what is not seen; dashes and digits of any kind as ASCII."""
    for _ in range(_PASSES):
        before = text
        text = unicodedata.normalize("NFKC", _UNSEEN.sub("", text)).casefold()
        text = "".join(map(_plain, text))
        if text == before:
            break
    return text


def _plain(c: str) -> str:
    if c.isascii():
        return "" if c.isspace() or not c.isprintable() else c
    if c.isspace() or c == _BLANK:
        return ""
    category = unicodedata.category(c)
    if category == "Nd":
        return str(unicodedata.decimal(c))
    if category == "Pd" or c == _MINUS:
        return "-"
    return "" if category in ("Cc", "Cf") else c


def _written(sign: str, whole: str, fraction: str, direction: str, exponent: str) -> str:
    """A number in one form: digits and a power of ten, written out where that is short; a zero has no sign."""
    power = int(direction + (exponent or "0")) - len(fraction)
    digits = (whole + fraction).lstrip("0")
    short = digits.rstrip("0")
    power += len(digits) - len(short)
    if not short:
        return ZERO
    sign = "-" if sign == "-" else ""
    if 0 <= power <= _LONGEST_WRITTEN_OUT:
        return f"{sign}{short}{'0' * power}"
    return f"{sign}{short}e{power}"
