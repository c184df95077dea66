"""Splits by patient: made from a seed where the data give none, and checked for leakage where they do."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from medharden.record import Label, present

__all__ = [
    "NAMELESS",
    "SPLITS",
    "Member",
    "contradictions",
    "leaks",
    "make_splits",
    "one_patient_an_image",
    "shared_pixels",
]

SPLITS = ("train", "val", "test")
NAMELESS = "case\0"
"""What the patient of a case that names none begins with; no patient's own name does."""


@dataclass(frozen=True, slots=True)
class Member:
    """What splitting needs to know of a case.

    Attributes:
        patient: what groups cases; the case itself where no patient is known. Private.
        pixels: digest of its stored pixels.
        masked: findings that nobody knows of it.
        split: as given, or "".
    """

    patient: str
    label: Label
    pixels: str
    split: str
    masked: tuple[int, ...] = ()


def make_splits(
    members: Sequence[Member], shares: dict[str, float], seed: int, together: Iterable[tuple[int, int]] = ()
) -> list[str]:
    """Assigns whole groups of patients to splits, each class or finding, and the cases without any, by the shares.

    Patients who share identical pixels, or a pair of `together`, form one group. Groups come largest first, equal ones
    in an order drawn from the seed and their patients' identifiers, and each goes to the split that lacks most of what
    it holds; so the result depends on neither file order nor the pseudonym key.

    Args:
        members: the cases.
        shares: split to its share; adding up to 1.
        seed: of the order.
        together: pairs of members that must not be parted.

    Returns:
        The split of each member.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(_groups(members, together)):
        groups[group].append(place)
    totals = Counter(k for m in members for k in _kinds(m.label))
    filled = {split: Counter[int]() for split in shares}
    assigned = [""] * len(members)
    order = sorted(groups, key=lambda g: (-len(groups[g]), hashlib.sha256(f"{seed}\0{g}".encode()).digest(), g))
    for group in order:
        counts = Counter(k for place in groups[group] for k in _kinds(members[place].label))
        lack = {
            split: sum(n * (1 - filled[split][k] / (share * totals[k])) / totals[k] for k, n in counts.items())
            for split, share in shares.items()
        }
        chosen = max(shares, key=lambda split: lack[split])
        filled[chosen].update(counts)
        for place in groups[group]:
            assigned[place] = chosen
    return assigned


def _kinds(label: Label) -> tuple[int, ...]:
    """What a case counts as: its class, or each of its findings; -1 for none."""
    return present(label) or (-1,)


def leaks(members: Sequence[Member], grouped: bool) -> Iterator[tuple[int, int, str]]:
    """Pairs of cases in different splits with one patient, or with identical pixels; one pair for each such thing.

    Args:
        members: the cases, each with its split.
        grouped: whether the data name patients.
    """
    keys = [("the same patient", [m.patient for m in members])] if grouped else []
    for what, values in [*keys, ("identical pixels", [m.pixels for m in members])]:
        first: dict[str, dict[str, int]] = defaultdict(dict)
        for place, (member, value) in enumerate(zip(members, values, strict=True)):
            first[value].setdefault(member.split, place)
        for by_split in first.values():
            places = sorted(by_split.values())
            yield from ((places[0], other, what) for other in places[1:])


def contradictions(members: Sequence[Member]) -> Iterator[tuple[int, int]]:
    """Cases with the same pixels as another one that has another label: (case, that other one)."""
    for places in shared_pixels(members):
        for place in places:
            other = next((o for o in places if _contradict(members[o], members[place])), None)
            if other is not None:
                yield place, other


def _contradict(one: Member, other: Member) -> bool:
    """Whether two labels say different things; of a finding that one of them leaves open they don't."""
    unsaid = {*one.masked, *other.masked}
    return set(present(one.label)) - unsaid != set(present(other.label)) - unsaid


def shared_pixels(members: Sequence[Member]) -> list[list[int]]:
    """Sets of two cases and more whose stored pixels are identical."""
    same: dict[str, list[int]] = defaultdict(list)
    for place, member in enumerate(members):
        same[member.pixels].append(place)
    return [places for places in same.values() if len(places) > 1]


def one_patient_an_image(members: Sequence[Member]) -> list[Member]:
    """Cases that name no patient and hold identical pixels become one patient's: a row doubled is no evidence more."""
    first: dict[str, str] = {}
    return [
        replace(m, patient=first.setdefault(m.pixels, m.patient)) if m.patient.startswith(NAMELESS) else m
        for m in members
    ]


def _groups(members: Sequence[Member], together: Iterable[tuple[int, int]]) -> list[str]:
    """Each member's group, named by the least of its patients: union-find over shared pixels and given pairs."""
    parent = {m.patient: m.patient for m in members}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    same = ((places[0], place) for places in shared_pixels(members) for place in places[1:])
    for one, other in (*same, *together):
        low, high = sorted((root(members[one].patient), root(members[other].patient)))
        parent[high] = low
    return [root(m.patient) for m in members]
