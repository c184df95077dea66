"""Whether the data are of the kind that the protocol is for, told from the listing, before anything is read."""

from __future__ import annotations

from medharden.data.sources.folder import Listing
from medharden.errors import DataError
from medharden.protocol import Protocol

__all__ = ["require_kind"]

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
_MOST_NAMED = 6


def require_kind(listing: Listing, protocol: Protocol) -> None:
    """Stops once where a protocol is for another kind of data, instead of at each case, or never.

    Raises:
        DataError: grey levels would be taken as Hounsfield units, single pictures as volumes, or most of the findings
            that the protocol names are in no case.
    """
    kinds = {entry.path.suffix.lower() for entry in listing.entries if entry.path is not None}
    paths = all(entry.path is not None for entry in listing.entries)
    if listing.entries and paths and kinds <= set(_PICTURES):
        _require_pictures(len(listing.entries), protocol)
    if protocol.task.multilabel and protocol.task.classes:
        _require_findings(listing, protocol, protocol.task.classes)


def _require_pictures(cases: int, protocol: Protocol) -> None:
    advice = (
        "take a protocol for pictures, such as chest-xray-binary, or write one: `medharden protocol new --data DATA`"
    )
    if protocol.threat.unit == "HU":
        raise DataError(
            f"the protocol {protocol.name} states its threat in Hounsfield units, and all {cases} cases are pictures, "
            f"whose grey levels are none; {advice}"
        )
    if protocol.input.dims == 3:
        raise DataError(
            f"the protocol {protocol.name} is for volumes (input.dims: 3), and all {cases} cases are single pictures; "
            f"{advice}"
        )


def _require_findings(listing: Listing, protocol: Protocol, wanted: tuple[str, ...]) -> None:
    held = {name for entry in listing.entries if isinstance(entry.label, tuple) for name in entry.label}
    lacking = [name for name in wanted if name not in held]
    if 2 * len(lacking) > len(wanted):
        named = ", ".join(lacking[:_MOST_NAMED]) + (", ..." if len(lacking) > _MOST_NAMED else "")
        raise DataError(
            f"of the {len(wanted)} findings that the protocol {protocol.name} names, {len(lacking)} are in no case "
            f"({named}): it is for other data. Name your findings in task.classes, or write a protocol from the data: "
            "`medharden protocol new --data DATA`"
        )
