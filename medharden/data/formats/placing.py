"""What DICOM headers say of where slices lie: of a file of its own, or of each frame of a multi-frame one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medharden.data.formats.dicom_file import raw_value
from medharden.data.formats.numbers import numbers_of, text_of
from medharden.data.formats.stack import Rank, Slice
from medharden.errors import DataError

__all__ = ["file_slice", "frame_slices", "functional_groups", "is_localizer", "number_of_frames"]

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")
_VECTORS = {  # of nuclear medicine (PS3.3 C.8.4.8): what a multi-frame file without functional groups has several of
    "EnergyWindowVector": "energy windows",
    "DetectorVector": "detectors",
    "PhaseVector": "phases",
    "RotationVector": "rotations",
    "RRIntervalVector": "R-R intervals",
    "TimeSlotVector": "time slots",
    "TimeSliceVector": "time slices",
    "AngularViewVector": "angular views",
}
_LOCALIZER = "LOCALIZER"


def number_of_frames(ds: Dataset) -> int:
    """How many frames the header announces; one where it says nothing."""
    return int(ds.get("NumberOfFrames") or 1)


def functional_groups(ds: Dataset, name: str) -> list[Dataset]:
    """The functional groups that hold a sequence: one shared by all frames, or one a frame, or none.

    Raises:
        DataError: some frames have it and others not.
    """
    for sequence in (_SHARED, _PER_FRAME):
        groups = [group for group in ds.get(sequence) or [] if group.get(name)]
        if groups and len(groups) not in (1, number_of_frames(ds)):
            raise DataError("describes some of its frames only")
        if groups:
            return groups
    return []


def file_slice(ds: Dataset) -> Slice:
    """Where the one frame of a file lies.

    Raises:
        DataError: a number is none.
    """
    if functional_groups(ds, "PlanePositionSequence"):  # an enhanced object of one frame
        return frame_slices(ds)[0]
    marks = _marks(
        kind=_words(ds, "ImageType"),
        echo=_first(ds, ("EchoTime", "EchoNumbers")),
        diffusion=_first(ds, ("DiffusionBValue",)),
        time=_first(
            ds,
            ("TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase", "FrameReferenceTime", "TriggerTime"),
        ),
        acquisition=_first(ds, ("AcquisitionNumber",)),
    )
    geometry = (numbers_of(ds, name) for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    position, orientation, spacing = map(tuple, geometry)
    return Slice(position, orientation, spacing, marks)


def frame_slices(ds: Dataset) -> list[Slice]:
    """Where each frame of a multi-frame file lies (PS3.3 C.7.6.16).

    Raises:
        DataError: some frames are described and others not, or the frames of a file of nuclear medicine are of several
            energy windows, phases ...
    """
    frames = number_of_frames(ds)
    _refuse_vectors(ds)
    if not ds.get(_PER_FRAME) and not ds.get(_SHARED):
        return [Slice()] * frames  # one position at most, which is the first frame's
    placed = _each(ds, "PlanePositionSequence", frames)
    turned = _each(ds, "PlaneOrientationSequence", frames)
    measured = _each(ds, "PixelMeasuresSequence", frames)
    content = _each(ds, "FrameContentSequence", frames)
    timing = _each(ds, "TemporalPositionSequence", frames)
    cardiac = _each(ds, "CardiacSynchronizationSequence", frames)
    echoes = _each(ds, "MREchoSequence", frames)
    diffusion = _each(ds, "MRDiffusionSequence", frames)
    kinds = next((k for k in (_each(ds, name, frames) for name in _FRAME_TYPES) if any(k)), [None] * frames)
    return [
        Slice(
            tuple(numbers_of(placed[n], "ImagePositionPatient")),
            tuple(numbers_of(turned[n], "ImageOrientationPatient")),
            tuple(numbers_of(measured[n], "PixelSpacing")),
            _marks(
                stack=text_of(content[n], "StackID") if content[n] is not None else "",
                kind=_words(kinds[n], "FrameType"),
                echo=_first(echoes[n], ("EffectiveEchoTime",)),
                diffusion=_diffusion(diffusion[n]),
                time=_time(content[n], timing[n], cardiac[n]),
                acquisition=_first(content[n], ("FrameAcquisitionNumber",)),
            ),
        )
        for n in range(frames)
    ]


def is_localizer(ds: Dataset) -> bool:
    """Whether a file says that it is a localiser or scout (ImageType)."""
    return any(word.upper() == _LOCALIZER for word in _words(ds, "ImageType"))


def _each(ds: Dataset, name: str, frames: int) -> Sequence[Dataset | None]:
    """The first item of a functional group for each frame."""
    groups = functional_groups(ds, name)
    if not groups:
        return [None] * frames
    items = [group.get(name)[0] for group in groups]
    return items if len(items) == frames else items * frames


def _time(content: Dataset | None, timing: Dataset | None, cardiac: Dataset | None) -> Rank | None:
    for item, names in (
        (content, ("TemporalPositionIndex",)),
        (timing, ("TemporalPositionTimeOffset",)),
        (cardiac, ("NominalPercentageOfCardiacPhase", "NominalCardiacTriggerDelayTime")),
    ):
        found = _first(item, names)
        if found is not None:
            return found
    return None


def _diffusion(item: Dataset | None) -> Rank | None:
    """The b-value; and the direction, of which several share it."""
    value = _first(item, ("DiffusionBValue",))
    if item is None or value is None:
        return None
    direction = item.get("DiffusionGradientDirectionSequence") or []
    along = numbers_of(direction[0], "DiffusionGradientOrientation") if direction else []
    return (f"{float(str(value)):015.4f}", *(f"{one:+.6f}" for one in along)) if along else value


def _refuse_vectors(ds: Dataset) -> None:
    for name, what in _VECTORS.items():
        several = set(numbers_of(ds, name))
        if len(several) > 1:
            raise DataError(f"holds frames of {len(several)} {what}; export the one that is meant to a file of its own")


def _marks(**said: Rank | None) -> dict[str, Rank]:
    return {name: mark for name, mark in said.items() if mark not in (None, "", ())}


def _first(ds: Dataset | None, names: Iterable[str]) -> Rank | None:
    for name in names:
        found = numbers_of(ds, name)
        if found:
            return found[0]
    return None


def _words(ds: Dataset | None, name: str) -> tuple[str, ...]:
    value = None if ds is None else raw_value(ds, name)
    if value is None:
        return ()
    return tuple(str(v).strip() for v in (value if isinstance(value, (list, tuple, MultiValue)) else [value]))
