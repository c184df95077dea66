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
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["PatientNames", "likeness", "name_patients", "patient_identity"]

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
_FIRST = "1"  # whoever has a patient 1 may have a patient 0
_ZERO = "0"
_PASSES = 4  # of the fold until nothing changes; Unicode needs two

# Small letters that look like Latin ones, or whose capitals do: Cyrillic, then Greek
_LOOKS = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u0437"
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "abekmhopctyxijshdqw3abezhikmnoptyx",
)
_LIKE_DIGITS = str.maketrans("oil", "011")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\W_]+(?=\d)")
_DIGITS = re.compile(r"[0-9]+")


def patient_identity(text: str) -> str:
    """The one form of a patient's identifier, however it is written; "" where it names nobody.

    A number that is zero gives "0", of which `name_patients` says whether it names somebody. The form of a form is
    itself.

    Args:
        text: as a manifest, a header or a folder has it.
    """
    folded = _folded(text).strip(_AROUND)
    number = _NUMBER.fullmatch(folded)
    if number is not None:
        written = _written(*number.groups(""))
        return "" if written == "-1" else written
    bare = "".join(c for c in folded if c.isalnum())
    return "" if not bare or bare in _NO_NAME else folded


def likeness(identity: str) -> str:
    """What two identities share that may be one person's, and may be two people's.

    Args:
        identity: of `patient_identity`.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", identity) if not unicodedata.combining(c))
    plain = _BETWEEN_DIGITS.sub(".", plain)
    plain = "".join(c for c in plain if c.isalnum() or c == ".")
    plain = re.sub(r"(?<!\d)\.|\.(?!\d)", "", plain)
    plain = plain.translate(_LOOKS).translate(_LIKE_DIGITS)
    return _DIGITS.sub(lambda run: run[0].lstrip("0") or "0", plain)


@dataclass(frozen=True)
class PatientNames:
    """Whose each case is, under one rule for all of them.

    Attributes:
        identities: (N,) each case's patient in one form, or "".
        groups: (N,) the least of the ways in which that patient is written, or "". Splits are drawn by it, so that
            data in which each patient is written in one way are split as they would be without this rule.
        placeholders: how many cases name their patient by a word that stands for none.
        respelt: how many patients are written in more than one way.
        disputed: sets of identities that are one patient by a less trusted source: the header of files of several
            patients of the manifest.
    """

    identities: tuple[str, ...]
    groups: tuple[str, ...]
    placeholders: int
    respelt: int
    disputed: tuple[tuple[str, ...], ...] = ()

    @property
    def named(self) -> int:
        """How many cases name a patient."""
        return sum(map(bool, self.identities))

    @property
    def largest(self) -> int:
        """How many cases the patient with most of them has; 0 where none is named."""
        counts: dict[str, int] = defaultdict(int)
        for identity in filter(None, self.identities):
            counts[identity] += 1
        return max(counts.values(), default=0)

    def alike(self) -> list[tuple[str, ...]]:
        """Sets of two identities and more that may be one person's (`likeness`)."""
        sets: dict[str, list[str]] = defaultdict(list)
        for identity in sorted(set(filter(None, self.identities))):
            sets[likeness(identity)].append(identity)
        return [tuple(members) for members in sets.values() if len(members) > 1]


def name_patients(said: Sequence[Sequence[str]]) -> PatientNames:
    """Whose each case is.

    Zero names a patient only where another case is of patient 1: then the patients are numbered from zero. Elsewhere
    it is what tables hold in place of nothing.

    Args:
        said: (N,) of each case what its sources call the patient, the most trusted first.
    """
    forms = {text: patient_identity(text) for texts in said for text in texts}
    from_zero = _FIRST in forms.values()
    forms = {text: "" if form == _ZERO and not from_zero else form for text, form in forms.items()}
    chosen = [next((text for text in texts if forms[text]), "") for texts in said]
    identities = tuple(forms.get(text, "") for text in chosen)
    written: dict[str, set[str]] = defaultdict(set)
    for text, identity in zip(chosen, identities, strict=True):
        written[identity].add(text)
    least = {identity: min(texts) for identity, texts in written.items()}
    by_others: dict[str, set[str]] = defaultdict(set)
    for texts, identity in zip(said, identities, strict=True):
        for other in {forms[text] for text in texts} - {identity, ""}:
            by_others[other].add(identity)
    return PatientNames(
        identities=identities,
        groups=tuple(least[identity] for identity in identities),
        placeholders=sum(not i and _says_something(texts) for i, texts in zip(identities, said, strict=True)),
        respelt=sum(len(texts) > 1 for identity, texts in written.items() if identity),
        disputed=tuple(sorted(tuple(sorted(of)) for of in by_others.values() if len(of) > 1)),
    )


def _says_something(texts: Iterable[str]) -> bool:
    return any(_folded(text) for text in texts)


def _folded(text: str) -> str:
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
        return _ZERO
    sign = "-" if sign == "-" else ""
    if 0 <= power <= _LONGEST_WRITTEN_OUT:
        return f"{sign}{short}{'0' * power}"
    return f"{sign}{short}e{power}"
