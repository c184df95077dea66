"""The items of a dataset taken into a store, in turn and in the thread that calls: it need not be safe in others."""

from __future__ import annotations

from collections.abc import Callable

from medharden.data.formats.image import StoredImage
from medharden.data.sources.dataset import Items
from medharden.data.sources.folder import Entry, Listing
from medharden.data.store.keeping import Kept, Store
from medharden.data.store.made import made_of
from medharden.data.view.case import READY
from medharden.errors import DataError, Problem
from medharden.protocol import Input
from medharden.record import Progress

__all__ = ["take_items"]


def take_items(
    items: Items, spec: Input, store: Store, name: Callable[[str], str], progress: Progress | None
) -> tuple[Listing, list[Kept | str]]:
    """Takes every item once, and a few again.

    Args:
        items: of the dataset.
        spec: the protocol's input.
        store: where inputs are kept.
        name: gives a case's pseudonym.
        progress: called with `("read", done, total)`.

    Returns:
        What there is, and of each entry what is kept, or why it can't be used.

    Raises:
        DataError: an item changes when it is asked for again.
        OutputError: the disk is full.
    """
    entries: list[Entry] = []
    found: list[Kept | str] = []
    problems: list[Problem] = []
    left_out: list[Problem] = []
    for row in range(len(items)):
        try:
            item = items.take(row)
        except DataError as error:
            entry, apart = items.entry(row), left_out if items.excludes(str(error)) else problems
            apart.append(Problem(name(entry.text), str(error), split=entry.split))
        else:
            entries.append(item.entry)
            try:
                found.append(store.put("", made_of(item.image, spec)))
            except DataError as error:
                found.append(str(error))
        if progress is not None:
            progress("read", row + 1, len(items))
    items.require_steady({e.row: k.case.pixels for e, k in zip(entries, found, strict=True) if isinstance(k, Kept)})

    def again(entry: Entry, _: object) -> StoredImage:
        return items.take(entry.row).image

    said = items.noted()
    return Listing(READY, items.classes, tuple(entries), again, tuple(problems), said, tuple(left_out)), found
