"""`--data dicomweb+https://...`: a search of a DICOMweb server in place of a table, and its answer as a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from medharden.data.dicomweb.address import Address, address_of
from medharden.data.sources.listing import REMOTE
from medharden.errors import DataError
from medharden.protocol import Columns

__all__ = ["Query", "as_table", "query_of"]

_OPTION = "--data"
_EXAMPLE = REMOTE + "https://pacs.example/dicom-web"
_SCHEME = re.compile(r"dicomweb\+(https?):/+(.*)", re.IGNORECASE | re.DOTALL)
_RESOURCE = re.compile(r"(.*?)(?:/studies(?:/([0-9.]{1,64}))?)?(/series)?/?", re.DOTALL)
_SHOWN_UIDS = ("StudyInstanceUID", "SeriesInstanceUID")
_LEFT_OUT = ("PN", "DA", "TM", "DT", "UR", "UN", "OB", "OW", "SQ")  # names, dates of birth, the server itself


@dataclass(frozen=True)
class Query:
    """A search (QIDO-RS).

    Attributes:
        address: the server.
        of_studies: whether a case is a study; else it is a series.
        study: the study whose series are searched; "" for those of all.
        filters: attribute and value, as the server matches them.
        limit, offset: how many are wanted, after how many; null wants all.
        fuzzy: whether names match fuzzily; null leaves it to the server.
        fields: further attributes that the answer is to hold.
        text: all of it, which tells it from another search.
    """

    address: Address
    of_studies: bool
    study: str
    filters: tuple[tuple[str, str], ...]
    limit: int | None
    offset: int
    fuzzy: bool | None
    fields: tuple[str, ...]
    text: str

    def wanting(self, columns: Columns) -> Query:
        """The same search, whose answer is to hold what the protocol's columns name too."""
        named = (*columns.paths, columns.label, columns.patient, columns.split)
        more = [name for name in named if name is not None and tag_for_keyword(name) is not None]
        fields = tuple(dict.fromkeys((*self.fields, *more)))
        return replace(self, fields=fields)

    @property
    def uid(self) -> str:
        """The attribute that names a case."""
        return _SHOWN_UIDS[not self.of_studies]


def query_of(data: Path) -> Query:
    """The search that `--data` is.

    Args:
        data: `dicomweb+https://SERVICE[/studies|/series|/studies/UID/series][?ATTRIBUTE=VALUE&...]`; a path has made
            one slash of two.

    Raises:
        DataError: it is no such address, or one that can't be asked safely; or no attribute of DICOM.
    """
    found = _SCHEME.fullmatch(str(data))
    if found is None:
        raise DataError(f"{_OPTION} is no address; expected {_EXAMPLE}?Modality=CT, or a path")
    url = f"{found[1].lower()}://{found[2]}"
    try:
        parts = urlsplit(url)
        place = _RESOURCE.fullmatch(parts.path)
    except ValueError:
        place = None
    if place is None:
        raise DataError(f"{_OPTION} is no address; expected {_EXAMPLE}?Modality=CT")
    if parts.fragment:
        raise DataError(f"{_OPTION} holds a '#'; write %23 where a value has that sign")
    address = address_of(parts._replace(path=place[1], query="").geturl(), _OPTION, _EXAMPLE)
    study, series = place[2] or "", bool(place[3])
    given: dict[str, list[str]] = {}
    for number, (name, value) in enumerate(parse_qsl(parts.query, keep_blank_values=True), 1):
        given.setdefault(_attribute(name, number), []).append(value)
    fields = tuple(part for value in given.pop("includefield", []) for part in value.split(","))
    if any(len(values) > 1 for values in given.values()):
        raise DataError(f"{_OPTION} names an attribute twice in its query")
    single = {name: values[0] for name, values in given.items()}
    limit, offset = _number(single, "limit", 1), _number(single, "offset", 0) or 0
    fuzzy = {"": None, "true": True, "false": False}.get(single.pop("fuzzymatching", "").lower())
    return Query(
        address=address,
        of_studies="/studies" in parts.path[len(place[1]) :] and not study and not series,
        study=study,
        limit=limit,
        offset=offset,
        fuzzy=fuzzy,
        filters=tuple(single.items()),
        fields=fields,
        text=url,
    )


def _attribute(name: str, number: int) -> str:
    """A parameter's name, if the standard has it: what else stands there may be a secret, and is neither sent nor said.

    Raises:
        DataError: it has not.
    """
    if name in ("limit", "offset", "fuzzymatching", "includefield"):
        return name
    known = tag_for_keyword(name) is not None or re.fullmatch(r"[0-9A-Fa-f]{8}", name) is not None
    if not known:
        raise DataError(
            f"parameter {number} of the query in {_OPTION} is no attribute of DICOM (such as Modality, StudyDate, "
            "BodyPartExamined), nor limit, offset, fuzzymatching or includefield"
        )
    return name


def _number(single: dict[str, str], name: str, least: int) -> int | None:
    said = single.pop(name, None)
    if said is None:
        return None
    if not (said.isascii() and said.isdecimal() and int(said) >= least):
        raise DataError(f"{name} in the query of {_OPTION} is no whole number from {least}")
    return int(said)


def as_table(found: Iterable[Mapping[str, Any]], query: Query, columns: Columns) -> str:
    """The answer of a search as CSV: a row a series (or study), a column an attribute, named by its keyword.

    Names, dates and addresses are left out. Where the protocol names no column for the path, the UID is that.
    """
    rows = [row for one in found if (row := _row(one)).get(query.uid)]
    if not rows:
        raise DataError(
            "the search finds nothing, or nothing that is shown under this token; ask for less in the query of --data"
        )
    header = sorted({name for row in rows for name in row})
    if not columns.paths:
        header = ["path", *header]
        rows = [{"path": row[query.uid], **row} for row in rows]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(found: Mapping[str, Any]) -> dict[str, str]:
    row = {}
    for tag, element in found.items():
        keyword = keyword_for_tag(tag) if re.fullmatch(r"[0-9A-Fa-f]{8}", str(tag)) else ""
        values = element.get("Value") if isinstance(element, dict) else None
        if keyword and isinstance(values, list) and dictionary_VR(tag) not in _LEFT_OUT:
            plain = [str(value) for value in values if isinstance(value, str | int | float)]
            row[keyword] = " ".join("\\".join(plain).split())
    return row
