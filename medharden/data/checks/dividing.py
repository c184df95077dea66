"""Each case's split: as the data give it, and checked, or made; and which test cases are copies of one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from medharden.data.checks.identity import PatientNames
from medharden.data.checks.near import ByRow, Hashes, NearPair, copy_links, input_links, nearest_pairs
from medharden.data.checks.patients import most_cases_of_one, refuse_one_patient
from medharden.data.checks.problems import check_coverage, refuse_leaks
from medharden.data.checks.splits import SPLITS, Member, make_splits
from medharden.protocol import Protocol
from medharden.protocol import Splits as Limits
from medharden.record import Finding, joined

__all__ = ["Division", "chain_findings", "divide", "farthest"]

_MOST_PAIRS = 10_000
_MANY = 0.05  # of the cases in one set of copies: rather pictures that all look alike than copies

Pairs = list[tuple[int, int]]


@dataclass(frozen=True)
class Division:
    """Where each case went, and what looks alike.

    Attributes:
        splits: (N,) `train`, `val` or `test`.
        origin: `given`, `made`, or `given, val made`.
        alike: the nearest pairs of cases in different splits.
        pairs: how many such pairs there are in all.
        copies: pairs that join test cases which look like copies of one image, of different patients.
        chained: how many cases the largest set of copies has that was kept in one split, where these are very many.
    """

    splits: list[str]
    origin: str
    alike: tuple[NearPair, ...]
    pairs: int
    copies: tuple[NearPair, ...]
    chained: int


def farthest(limits: Limits) -> int | None:
    """Up to how many bits pairs are looked for; null where none are."""
    wanted = [bits for bits in (limits.near_duplicate_bits, limits.similar_bits) if bits is not None]
    return max(wanted) if wanted else None


def divide(
    members: Sequence[Member],
    patients: PatientNames,
    names: Sequence[str],
    classes: tuple[str, ...],
    hashes: Hashes,
    inputs: ByRow,
    protocol: Protocol,
    together: Sequence[tuple[int, int]] = (),
) -> Division:
    """Keeps patients and copies of an image in one split, or refuses given splits that part them.

    Args:
        members: the cases, each with its patient's group and the split that the data give.
        patients: whose each case is.
        names: their pseudonyms.
        classes: of the task.
        hashes: of the cases; empty where no pair is looked for.
        inputs: (N, C, *spatial) in [0, 1].
        protocol: shares, seed, limits.
        together: pairs of cases that made splits keep in one, for another reason.

    Raises:
        DataError: one patient alone, splits that share a patient or an image, or a split without cases of a class.
    """
    refuse_one_patient(patients)
    limits = protocol.splits
    reviewed = _reviewed(limits, names)
    given = {m.split for m in members}
    links: tuple[NearPair, ...] = ()
    if given == {""}:
        links = _links(hashes, members, range(len(members)), limits, reviewed)
        splits, origin = (
            _made(members, patients, range(len(members)), dict(_shares(protocol)), links, protocol, together),
            "made",
        )
    else:
        refuse_leaks(members, patients, names, _across(hashes, members, names, limits))
        splits, origin = [m.split for m in members], "given"
        if given == {"train", "test"}:
            train = [n for n, m in enumerate(members) if m.split == "train"]
            links = _links(hashes, members, train, limits, reviewed)
            shares = dict(_shares(protocol))
            del shares["test"]
            made = _made(members, patients, train, shares, links, protocol, together)
            splits, origin = [s or m.split for s, m in zip(made, members, strict=True)], "given, val made"
    largest = max(Counter(joined(len(members), ((p.first, p.second) for p in links))).values())
    chained = largest if largest > max(2.0, _MANY * len(members)) else 0
    why = [said for said in (most_cases_of_one(patients), _chain_words(chained, len(members))) if said]
    check_coverage(
        splits,
        [m.label for m in members],
        classes,
        masked=[m.masked for m in members],
        why=why if origin != "given" else (),
    )
    bits = farthest(limits)
    alike, pairs = nearest_pairs(hashes, splits, bits or 0, most=_MOST_PAIRS)
    return Division(splits, origin, alike, pairs, _in_test(splits, members, hashes, inputs, limits, reviewed), chained)


def chain_findings(division: Division) -> list[Finding]:
    """That one set of copies has very many cases, if it has."""
    words = _chain_words(division.chained, len(division.splits))
    return [Finding("data.many_copies", "warning", words)] if words else []


def _chain_words(chained: int, cases: int) -> str:
    if not chained:
        return ""
    return (
        f"{chained} of {cases} cases look like copies of one another, each of the next, and were kept in one split. If "
        "they are different images that only look alike, lower splits.near_duplicate_bits."
    )


def _shares(protocol: Protocol) -> Iterator[tuple[str, float]]:
    yield from ((name, float(getattr(protocol.splits, name))) for name in SPLITS)


def _made(
    members: Sequence[Member],
    patients: PatientNames,
    rows: Sequence[int],
    shares: dict[str, float],
    links: Iterable[NearPair],
    protocol: Protocol,
    others: Sequence[tuple[int, int]],
) -> list[str]:
    """(N,) splits of the chosen rows by shares, which may add up to less than 1; "" of the others."""
    whole = sum(shares.values())
    place = {row: k for k, row in enumerate(rows)}
    together = [*((p.first, p.second) for p in links), *_perhaps_one(patients), *others]
    kept = [(place[one], place[other]) for one, other in together if one in place and other in place]
    parts = {name: share / whole for name, share in shares.items()}
    splits = [""] * len(members)
    for row, split in zip(rows, make_splits([members[n] for n in rows], parts, protocol.seed, kept), strict=True):
        splits[row] = split
    return splits


def _perhaps_one(patients: PatientNames) -> Pairs:
    """Pairs of cases, one of each patient, whose identifiers may be one person's."""
    first: dict[str, int] = {}
    for row, identity in enumerate(patients.identities):
        first.setdefault(identity, row)
    return [(first[members[0]], first[other]) for members in patients.alike() for other in members[1:]]


def _reviewed(limits: Limits, names: Sequence[str]) -> Pairs:
    """The reviewed pairs by row, of which both cases are here."""
    row = {name: n for n, name in enumerate(names)}
    pairs = (pair.cases for pair in limits.reviewed)
    return [(row[one], row[other]) for one, other in pairs if one in row and other in row]


def _across(hashes: Hashes, members: Sequence[Member], names: Sequence[str], limits: Limits) -> list[NearPair]:
    """Pairs in different given splits that count as copies of one image."""
    if limits.near_duplicate_bits is None:
        return []
    pairs, _ = nearest_pairs(hashes, [m.split for m in members], limits.near_duplicate_bits, most=_MOST_PAIRS)
    return [p for p in pairs if limits.is_copy(names[p.first], names[p.second], p.bits)]


def _links(
    hashes: Hashes, members: Sequence[Member], rows: Sequence[int], limits: Limits, reviewed: Pairs
) -> tuple[NearPair, ...]:
    """Pairs that join what counts as copies among the chosen rows."""
    if limits.near_duplicate_bits is None:
        return ()
    place = {row: k for k, row in enumerate(rows)}
    apart = [(place[one], place[other]) for one, other in reviewed if one in place and other in place]
    chosen = [hashes[n] for n in rows]
    links = copy_links(chosen, [members[n].patient for n in rows], limits.near_duplicate_bits, apart)
    return tuple(replace(p, first=rows[p.first], second=rows[p.second]) for p in links)


def _in_test(
    splits: Sequence[str],
    members: Sequence[Member],
    hashes: Hashes,
    inputs: ByRow,
    limits: Limits,
    reviewed: Pairs,
) -> tuple[NearPair, ...]:
    test = [n for n, split in enumerate(splits) if split == "test"]
    if limits.near_duplicate_bits is None:
        return ()
    return (*_links(hashes, members, test, limits, reviewed), *input_links(inputs, hashes, test))
