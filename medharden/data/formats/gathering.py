"""Which files make one case: a file alone, a NIfTI header with its image, or the slices of a DICOM series."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.errors import BytesLengthException, InvalidDicomError

from medharden.data.formats.dicom_file import read_head
from medharden.data.formats.files import sniff
from medharden.data.formats.image import MALFORMED, quiet_readers
from medharden.data.formats.nifti import pair_of
from medharden.data.formats.numbers import text_of
from medharden.data.formats.placing import is_localizer, number_of_frames
from medharden.errors import DataError
from medharden.protocol import Input

__all__ = ["LEFT_ASIDE", "Gathered", "Unit", "gather"]

LEFT_ASIDE = {
    "data.localisers": "files of localisers, which are no volumes, were left aside",
    "data.other_series": "series beside the largest of their examination were left aside (input.volume.series)",
    "data.no_images": "DICOM objects that are no images of their own (reports, segmentations, doses) were left aside",
}
"""Codes of findings about what is not taken for a case, and what they say after a number."""

_TAGS = (
    *("SOPClassUID", "Modality", "ImageType", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "NumberOfFrames"),
    "Rows",
)
_ROWS = 0x00280011
_OTHER_OBJECTS = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "KO", "SR", "REG", "DOC", "AU", "PLAN", "FID", "SMR")
_MOST_SHOWN = 6


@dataclass(frozen=True)
class Unit:
    """What may be one case.

    Attributes:
        text: names it below the root, with forward slashes: a file, the folder of a series, or folder and series.
        files: sorted; one alone, a header and its image, or the slices of a series.
        reason: why it can't be used, or "".
        uid: SeriesInstanceUID of a series.
    """

    text: str
    files: tuple[Path, ...]
    reason: str = ""
    uid: str = ""


@dataclass(frozen=True)
class Gathered:
    """The cases of some files, and how many of what was left aside."""

    units: tuple[Unit, ...]
    aside: Counter[str] = field(default_factory=Counter)


@dataclass
class _Series:
    """The slices of one series."""

    uid: str
    patient: str
    study: str
    localizer: bool
    files: list[Path] = field(default_factory=list)


def gather(root: Path, paths: Iterable[Path], spec: Input) -> Gathered:
    """Puts files together that are one case.

    Single-frame DICOM files are slices where volumes are asked for: those of one SeriesInstanceUID and patient are one
    case, in whatever folders below the same class they lie. Of an examination with several series the protocol's
    `input.volume.series` says which are taken; localisers are not.

    Args:
        root: of the data.
        paths: of image files, all of one class and split where the data have such.
        spec: the protocol's input.
    """
    units: list[Unit] = []
    single: list[Path] = []
    for files in _paired(sorted(paths)):
        if len(files) == 1:
            single.append(files[0])
        else:
            units.append(Unit(_below(root, files[0]), files))
    if spec.dims != 3:
        return Gathered(tuple(units + [Unit(_below(root, path), (path,)) for path in single]))
    aside: Counter[str] = Counter()
    with quiet_readers():
        found, alone, broken = _sorted_out(single, aside)
    series = _without_localisers(found, aside)
    units += [Unit(_below(root, path), (path,)) for path in alone]
    beside: dict[Path, list[Path]] = defaultdict(list)
    for path in broken:
        beside[path.parent].append(path)
    for one in series:  # a slice that can't be told is a slice of every series beside it: what is missing is not known
        one.files += [path for folder in sorted({path.parent for path in one.files}) for path in beside[folder]]
    held = {path.parent for one in series for path in one.files}
    units += [Unit(_below(root, path), (path,)) for path in broken if path.parent not in held]
    shared = Counter(folder for one in series for folder in {path.parent for path in one.files})
    for members in _examinations(series):
        units += _units(root, members, spec, aside, shared)
    return Gathered(tuple(sorted(units, key=lambda unit: unit.text)), aside)


def _paired(paths: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Each file alone, or a NIfTI header with the image beside it, once."""
    seen: set[Path] = set()
    for path in paths:
        if path in seen:
            continue
        files = pair_of(path)
        seen.update(files)
        yield files


def _sorted_out(paths: Sequence[Path], aside: Counter[str]) -> tuple[list[_Series], list[Path], list[Path]]:
    """The series of single frames, the files that stand alone, and those whose headers can't be read."""
    series: dict[tuple[object, ...], _Series] = {}
    alone: list[Path] = []
    broken: list[Path] = []
    for path in paths:
        try:
            kind = sniff(path)
        except DataError:
            kind = ""
        if kind != "dicom":
            alone.append(path)
            continue
        try:
            ds = read_head(path, _TAGS, last=_ROWS + 1)
            if "Rows" not in ds or text_of(ds, "Modality").upper() in _OTHER_OBJECTS:
                if text_of(ds, "SOPClassUID"):
                    aside["data.no_images"] += 1
                else:
                    broken.append(path)
                continue
            if number_of_frames(ds) > 1:
                alone.append(path)
                continue
            found = _Series(
                text_of(ds, "SeriesInstanceUID"),
                text_of(ds, "PatientID"),
                text_of(ds, "StudyInstanceUID"),
                is_localizer(ds),
            )
        except (*MALFORMED, DataError, InvalidDicomError, BytesLengthException):
            broken.append(path)
            continue
        place = () if found.uid else (path.parent,)
        one = series.setdefault((found.uid, found.patient, found.localizer, *place), found)
        one.files.append(path)
    return list(series.values()), alone, broken


def _without_localisers(series: Sequence[_Series], aside: Counter[str]) -> list[_Series]:
    """The series, but not localisers in a folder, or of an examination, that has others; these are counted."""
    volumes = [one for one in series if not one.localizer]
    folders = {path.parent for one in volumes for path in one.files}
    studies = {(one.patient, one.study) for one in volumes if one.study}
    kept = []
    for one in series:
        beside = (one.patient, one.study) in studies or any(path.parent in folders for path in one.files)
        if one.localizer and beside:
            aside["data.localisers"] += len(one.files)
        else:
            kept.append(one)
    return kept


def _examinations(series: Sequence[_Series]) -> list[list[_Series]]:
    """Series by patient and study; by folder where no study is named."""
    found: dict[tuple[object, ...], list[_Series]] = defaultdict(list)
    for one in series:
        found[(one.patient, one.study or _common(one.files))].append(one)
    return list(found.values())


def _units(root: Path, members: list[_Series], spec: Input, aside: Counter[str], shared: Counter[Path]) -> list[Unit]:
    """The cases of one examination."""
    kept = members
    rule = "each" if spec.channels_from else spec.volume.series
    if len(kept) > 1 and rule == "largest":
        most = max(len(one.files) for one in kept)
        largest = [one for one in kept if len(one.files) == most]
        if len(largest) > 1:
            reason = f"has {len(largest)} series of {most} files each, of which none is the largest; {_ADVICE}"
            return [_refused(root, kept, reason)]
        aside["data.other_series"] += len(kept) - 1
        kept = largest
    if len(kept) > 1 and rule == "one":
        counts = sorted((len(one.files) for one in kept), reverse=True)
        shown = ", ".join(map(str, counts[:_MOST_SHOWN])) + (", ..." if len(counts) > _MOST_SHOWN else "")
        return [_refused(root, kept, f"has {len(kept)} series in one examination, of {shown} files; {_ADVICE}")]
    return [Unit(_named(root, one, shared), tuple(sorted(one.files)), uid=one.uid) for one in kept]


_ADVICE = "set input.volume.series to 'largest' or 'each', name the series in a CSV, or take out what is not meant"


def _refused(root: Path, series: Sequence[_Series], reason: str) -> Unit:
    files = sorted(path for one in series for path in one.files)
    return Unit(_below(root, _common(files)), tuple(files), reason)


def _named(root: Path, one: _Series, shared: Counter[Path]) -> str:
    """The folder that holds the series and no other; else folder and UID."""
    folder = _common(one.files)
    text = _below(root, folder)
    alone = shared[folder] == 1 and all(path.parent == folder for path in one.files)
    return text if alone or not one.uid else f"{text}/{one.uid}"


def _common(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in files]))


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
