"""What a DICOM header says of who a patient is: names, identifiers, dates, UIDs, addresses, by kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medharden.data.formats.image import MALFORMED

__all__ = ["header_identifiers"]

# after the table of attributes in PS3.15 Annex E; by value representation where that tells the kind
_BY_REPRESENTATION = {"PN": "name", "UI": "uid", "DA": "date", "DT": "date"}
_BY_KEYWORD = {
    "AccessionNumber": "accession number",
    "AdmissionID": "identifier",
    "MedicalRecordLocator": "identifier",
    "OtherPatientIDs": "identifier",
    "PatientAddress": "address",
    "PatientID": "identifier",
    "PatientMotherBirthName": "name",
    "PatientTelephoneNumbers": "telephone number",
    "PerformedProcedureStepID": "identifier",
    "RequestedProcedureID": "identifier",
    "ScheduledProcedureStepID": "identifier",
    "ServiceEpisodeID": "identifier",
    "StudyID": "identifier",
}
_ASCII = ("UI", "DA", "DT")  # whose text is in no other character set, and need not be made an element first
_PADDING = " \0\t\n\r\f\v"
_STANDARD = "1.2.840.10008."  # UIDs that the standard itself registers: transfer syntaxes, SOP classes


def header_identifiers(ds: Dataset) -> tuple[tuple[str, str], ...]:
    """Kind and value of every identifying element, sequences included; what can't be read is left aside."""
    return tuple(dict.fromkeys(_walk(ds)))


def _walk(ds: Dataset) -> Iterator[tuple[str, str]]:
    for tag in list(ds.keys()):
        try:
            stored = ds.get_item(tag, keep_deferred=True)
            if not _may_name(stored):
                continue
            if isinstance(stored, RawDataElement) and stored.VR in _ASCII and stored.value is not None:
                yield from _told(_BY_REPRESENTATION[stored.VR], stored.value.decode("latin-1").split("\\"))
                continue
            element = ds[tag]
            representation, value = str(element.VR), element.value
        except MALFORMED:  # a damaged element beside the image is no reason to refuse the image
            continue
        if representation == "SQ":
            for item in value or ():
                yield from _walk(item)
            continue
        kind = _BY_REPRESENTATION.get(representation) or _BY_KEYWORD.get(str(element.keyword))
        if kind is not None:
            yield from _told(kind, value)


def _told(kind: str, value: Any) -> Iterator[tuple[str, str]]:
    return ((kind, text) for text in _texts(value) if not text.startswith(_STANDARD))


def _may_name(element: DataElement | RawDataElement) -> bool:
    """Whether an element could say who somebody is; what can't is left as the bytes that it is in the file."""
    if not isinstance(element, RawDataElement):
        return True
    known = dictionary_has_tag(element.tag)
    told = element.VR or (dictionary_VR(element.tag) if known else None)
    if told in _BY_REPRESENTATION or told in ("SQ", "UN", None):
        return True
    return known and dictionary_keyword(element.tag) in _BY_KEYWORD


def _texts(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, (list, tuple, MultiValue)) else [value]:
        text = "" if one is None else str(one).strip(_PADDING)
        if text:
            yield text
