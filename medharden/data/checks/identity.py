"""Whose each case is: patients whose identifiers are one, may be one, or are disputed between sources."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medharden.patients import ZERO, folded, patient_identity

__all__ = ["PatientNames", "likeness", "name_patients"]

_FIRST = "1"  # whoever has a patient 1 may have a patient 0

# Small letters that look like Latin ones, or whose capitals do: Cyrillic, then Greek
_LOOKS = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u0437"
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "abekmhopctyxijshdqw3abezhikmnoptyx",
)
_LIKE_DIGITS = str.maketrans("oil", "011")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\W_]+(?=\d)")
_DIGITS = re.compile(r"[0-9]+")


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
    forms = {text: "" if form == ZERO and not from_zero else form for text, form in forms.items()}
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
    return any(folded(text) for text in texts)
