"""Files that are channels of one case: by the patterns of `input.channels_from`, or as a manifest lists them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from medharden.data.sources.folder import Entry, Listing
from medharden.errors import DataError, Problem
from medharden.protocol import Channel
from medharden.record import Finding

__all__ = ["ChannelPatterns", "in_channels", "stacked_finding"]

Files = tuple[Path, ...]


class ChannelPatterns:
    """Tells which channel a file is, and of which case.

    Attributes:
        names: of the channels, in their order.
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        """Takes the channels with their patterns; one with `/` is held against the whole path."""
        self.names = tuple(channel.name for channel in channels)
        given = [channel.files for channel in channels]
        self._forms = [("/" in pattern, _form(pattern)) for pattern in given if pattern is not None]

    def place(self, text: str) -> tuple[int, tuple[str, ...]] | None:
        """Number of the channel that a path is, and what is alike of all channels of its case; null if it is none.

        Raises:
            DataError: it fits the patterns of two channels.
        """
        path, found = PurePosixPath(text), []
        for number, (whole, form) in enumerate(self._forms):
            matched = form.fullmatch((text if whole else path.name).casefold())
            if matched is not None:
                folder = () if whole else (path.parent.as_posix(),)
                found.append((number, (*folder, *matched.groups())))
        if len(found) > 1:
            both = " and ".join(repr(self.names[number]) for number, _ in found)
            raise DataError(f"a file fits the patterns of the channels {both} of input.channels_from; tell them apart")
        return found[0] if found else None

    def ordered(self, texts: Sequence[str]) -> tuple[list[int], str]:
        """For each channel the place of its file among some, and why there is not one for each, or ""."""
        places = [self.place(text) for text in texts]
        numbers = [None if place is None else place[0] for place in places]
        counts = [numbers.count(number) for number in range(len(self.names))]
        if any(count != 1 for count in counts):
            return [], self.lack(counts)
        return [numbers.index(number) for number in range(len(self.names))], ""

    def lack(self, counts: Sequence[int]) -> str:
        """What a case lacks that has so many files of each channel."""
        lacking = [name for name, count in zip(self.names, counts, strict=True) if not count]
        twice = [name for name, count in zip(self.names, counts, strict=True) if count > 1]
        said = [f"no file for the channel {', '.join(map(repr, lacking))}"] if lacking else []
        said += [f"several files for the channel {', '.join(map(repr, twice))}"] if twice else []
        return f"has {' and '.join(said)} of input.channels_from"


def in_channels(listing: Listing, patterns: ChannelPatterns, name: Callable[[str], str]) -> Listing:
    """The images of class folders stacked to cases; an image that fits no channel is no case, and counted.

    A case is named by the path of its first channel.

    Args:
        listing: an entry an image.
        patterns: of the channels.
        name: gives a case's pseudonym.

    Raises:
        DataError: no image fits a pattern, or one fits two.
    """
    cases: dict[tuple[object, ...], list[tuple[int, Entry]]] = defaultdict(list)
    aside = 0
    for entry in listing.entries:
        place = patterns.place(entry.text)
        if place is None:
            aside += 1
        else:
            cases[entry.label, entry.split, *place[1]].append((place[0], entry))
    if not cases:
        raise DataError(
            f"none of the {aside} images fits a pattern of input.channels_from ({', '.join(patterns.names)}); a "
            "pattern without / is held against the file's name, one with / against its path below the data's root"
        )
    entries, problems = [], list(listing.problems)
    for members in cases.values():
        members.sort(key=lambda member: (member[0], member[1].text))
        first = members[0][1]
        counts = [sum(number == k for number, _ in members) for k in range(len(patterns.names))]
        if all(count == 1 for count in counts):
            entries.append(replace(first, slices=(), channels=tuple(e.parts[0] for _, e in members)))
        else:
            problems.append(Problem(name(first.text), patterns.lack(counts), first.label, first.split))
    findings = [*listing.findings, *stacked_finding(entries, patterns.names), *_unstacked(aside)]
    return replace(listing, entries=tuple(entries), problems=tuple(problems), findings=tuple(findings))


def stacked_finding(entries: Iterable[Entry], names: Sequence[str]) -> tuple[Finding, ...]:
    """How many cases are stacked of how many images, in which order."""
    counts = [len(entry.channels) for entry in entries if entry.channels]
    if not counts:
        return ()
    message = f"{len(counts)} cases are stacked of {max(counts)} images each as channels: {', '.join(names)}."
    return (Finding("data.stacked_channels", "info", message),)


def _unstacked(count: int) -> tuple[Finding, ...]:
    if not count:
        return ()
    message = f"{count} images fit no pattern of input.channels_from and were left out."
    return (Finding("data.unchosen_files", "info", message),)


def _form(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression, in small letters, with a group for each `*` and `?`."""
    parts = {"*": "(.*)", "?": "(.)"}
    return re.compile("".join(parts.get(sign, re.escape(sign)) for sign in pattern.casefold()), re.DOTALL)
