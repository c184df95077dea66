"""`show_parity()`: a model's answers through its team's own pipeline and through ours, on the same files."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medharden.data import Cohort
from medharden.data.formats.files import read_file, sniff
from medharden.data.formats.image import MALFORMED, StoredImage, quiet_readers
from medharden.data.formats.limits import Room
from medharden.data.stored.cases import StoredCases
from medharden.data.view.spatial import Affine, spatial
from medharden.errors import DataError, MedHardenError
from medharden.models import Classifier, SourceView, timm_module, torchvision_transforms, transformers_module
from medharden.monai_import import monai_module
from medharden.protocol import Input, Protocol, Step
from medharden.record import PARITY_TOLERANCE, SourceParity

__all__ = ["PARITY_CASES", "show_parity"]

PARITY_CASES = 4
"""Cases on which `harden` tries it."""

_ON_THE_GRID = ("Orientationd", "Spacingd", "CropForegroundd", "CenterSpatialCropd", "SpatialPadd", "Resized")
_ON_THE_VALUES = ("ScaleIntensityd", "ScaleIntensityRanged", "NormalizeIntensityd")
_VOLUME = 4  # axes of (C, *spatial)
_ONE_WAY = (Step(step="orientation", axes="RAS"),)
_WHOSE = {"bundle": "MONAI", "torchvision's weights": "torchvision", "preprocessor_config.json": "transformers"}
_FAULTS = (*MALFORMED, AssertionError, ImportError, MemoryError)


@dataclass(frozen=True)
class _Pipeline:
    """A team's own way from a file to the network's input.

    Attributes:
        name: in words.
        start: from a file to its first state.
        stages: name, what is done to a state, and the steps that are the same in the protocol's terms; null of a stage
            that leaves the grid.
        tensor: (C, *spatial) float of a state.
        affine: of a state, where it has one.
        read: (C, *spatial), what the first state should be.
    """

    name: str
    start: Callable[[Path], Any]
    stages: tuple[tuple[str, Callable[[Any], Any], tuple[Step, ...] | None], ...]
    tensor: Callable[[Any], Tensor]
    affine: Callable[[Any], Affine | None]
    read: Callable[[StoredImage], Tensor]


@dataclass(frozen=True)
class _Compared:
    theirs: Tensor
    ours: Tensor
    step: str


def show_parity(
    classifier: Classifier, cohort: Cohort, files: Callable[[], StoredCases], protocol: Protocol, *, cases: int
) -> SourceParity:
    """Runs both pipelines on some training cases.

    Args:
        classifier: as loaded, on the CPU; its source's view goes with it.
        cohort: whose cases; no test case is read.
        files: gives the files behind them; called only where the source names a pipeline.
        protocol: its input and task.
        cases: how many, spread over the training split.

    Returns:
        The largest difference and where it arises; or why it is not shown.
    """
    view = classifier.view
    if view is None:
        return SourceParity("", why="its file names no pipeline that medharden knows")
    try:
        with _quiet():
            pipeline = _pipeline(view, classifier)
    except _FAULTS as error:
        whose = _WHOSE.get(view.source, "timm")
        why = f"its transforms can't be made by the {whose} that is installed ({type(error).__name__})"
        return SourceParity(whose, why=why)
    rows = cohort.indices("train")
    chosen = [rows[n] for n in np.unique(np.linspace(0, len(rows) - 1, min(cases, len(rows))).astype(int))]
    entries = files().entries
    compared, reasons = [], []
    for row in chosen:
        entry = entries.get(cohort.cases[row].case)
        path = None if entry is None or entry.slices or entry.channels or entry.frame else entry.path
        if path is None:
            reasons.append("the cases are no files of their own")
            continue
        fed, _ = cohort.batch([row])
        try:
            compared.append(_compared(pipeline, classifier, path, fed, protocol.input))
        except DataError as error:
            reasons.append(str(error))
    if not compared:
        return SourceParity(pipeline.name, why=reasons[0])
    return _summed(pipeline, compared, multilabel=protocol.task.multilabel)


def _summed(pipeline: _Pipeline, compared: Sequence[_Compared], *, multilabel: bool) -> SourceParity:
    gaps = [float((c.theirs - c.ours).abs().max()) for c in compared]
    worst = int(np.argmax(gaps))
    differs = gaps[worst] > PARITY_TOLERANCE
    changed = sum(_answer(c.theirs, multilabel) != _answer(c.ours, multilabel) for c in compared)
    return SourceParity(pipeline.name, len(compared), gaps[worst], changed, compared[worst].step if differs else "")


def _answer(logits: Tensor, multilabel: bool) -> list[int]:
    """The class, or each finding, that logits come to."""
    return (logits[0] > 0).int().tolist() if multilabel else [int(logits.argmax())]


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither library warns of decoders that are not installed, nor quotes a header."""
    with quiet_readers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def _compared(pipeline: _Pipeline, classifier: Classifier, path: Path, fed: Tensor, spec: Input) -> _Compared:
    """Both answers to a file, and the first step at which they part.

    Raises:
        DataError: the team's pipeline does not take the file.
    """
    if sniff(path) in ("dicom", "nifti") and classifier.view is not None and classifier.view.source != "bundle":
        raise DataError(f"{pipeline.name} takes pictures, and the cases are none")
    try:
        with _quiet():
            state = pipeline.start(path)
            for _, apply, _ in pipeline.stages:
                state = apply(state)
            made = _of_channels(pipeline.tensor(state), classifier.record.channels)
            theirs = classifier.answered(made[None])
    except MedHardenError:
        raise
    except _FAULTS as error:  # whose texts may quote the file's header
        raise DataError(f"{pipeline.name} does not take the files ({type(error).__name__})") from None
    ours = classifier(fed)
    if theirs.shape != ours.shape:
        return _Compared(torch.full_like(ours, torch.inf), ours, "the network's answer")
    if float((theirs - ours).abs().max()) <= PARITY_TOLERANCE:
        return _Compared(theirs, ours, "")
    with _quiet():
        return _Compared(theirs, ours, _where(pipeline, path, spec, classifier.view))


def _of_channels(made: Tensor, channels: int) -> Tensor:
    return made.expand(channels, *made.shape[1:]) if len(made) == 1 else made


def _where(pipeline: _Pipeline, path: Path, spec: Input, view: SourceView | None) -> str:
    """The first step whose outcome is another, each given what the team's pipeline has before it."""
    if view is not None and (spec.spatial, spec.size) != (view.input.spatial, view.input.size):
        return "input.spatial, of which the source says otherwise"
    with Room().file() as hold:
        image = read_file(path, spec.dims, hold, spec.volume)
    state, read = pipeline.start(path), False
    for name, apply, steps in pipeline.stages:
        if steps is not None and not read:
            read = True
            theirs, ours = pipeline.tensor(state), pipeline.read(image)
            if theirs.ndim == _VOLUME:  # readers differ in the order of axes, and say so in the affine
                theirs = spatial(theirs, _ONE_WAY, pipeline.affine(state))
                ours = spatial(ours, _ONE_WAY, image.affine)
            if not _same(theirs, ours):
                return "reading the file"
        made = spatial(pipeline.tensor(state), steps, pipeline.affine(state)) if steps else None
        state = apply(state)
        if made is not None and not _same(made, pipeline.tensor(state)):
            return name
    return "channels, intensity or normaliser"


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two images are equal as far as 8 bits and rounding tell; one channel may stand for all."""
    if one.shape[1:] != other.shape[1:] or (len(one) != len(other) and 1 not in (len(one), len(other))):
        return False
    width = float(other.max() - other.min())
    return float((one - other).abs().max()) <= PARITY_TOLERANCE * max(width, 1e-6)


def _pipeline(view: SourceView, classifier: Classifier) -> _Pipeline:
    """What the source's own library makes of its word."""
    whose = _WHOSE.get(view.source, "timm")
    if whose == "MONAI":
        return _monai(view)
    if whose == "timm":
        return _timm(view, classifier)
    [(name, arguments)] = view.pipeline
    if whose == "torchvision":
        made = torchvision_transforms(arguments["name"])
        return _whole("torchvision's weights.transforms", made, classifier)
    library = transformers_module()
    kind = getattr(library, f"{name}Pil", None) or getattr(library, name)  # that resizes as Pillow does
    processor = kind(**arguments)
    return _whole(
        "transformers' image processor",
        lambda picture: torch.as_tensor(processor(picture, return_tensors="pt")["pixel_values"][0]),
        classifier,
    )


def _whole(name: str, call: Callable[[Any], Any], classifier: Classifier) -> _Pipeline:
    """A pipeline that is one call on a picture that Pillow opens."""
    mode = "L" if classifier.record.channels == 1 else "RGB"

    def start(path: Path) -> Any:
        with Image.open(path) as picture:
            return picture.convert(mode)

    return _Pipeline(
        name=name,
        start=start,
        stages=((name, call, None),),
        tensor=lambda state: state,
        affine=lambda state: None,
        read=lambda image: torch.from_numpy(image.values) / 255,
    )


def _timm(view: SourceView, classifier: Classifier) -> _Pipeline:
    """Timm's `create_transform`, on a picture that Pillow opens as timm's datasets do."""
    timm_module()
    [(_, config)] = view.pipeline
    record = classifier.record
    if record.channels == 1:  # as timm has it where there is one channel: the averages
        config = {**config, "mean": record.mean, "std": record.std}
    transforms = importlib.import_module("timm.data").create_transform(**config).transforms
    unit = importlib.import_module("torchvision.transforms.functional").to_tensor
    mode = "L" if record.channels == 1 else "RGB"
    ahead = list(view.input.spatial)
    steps = {"Resize": tuple(ahead[:1]), "ResizeKeepRatio": tuple(ahead[:1]), "CenterCrop": tuple(ahead[1:])}

    def start(path: Path) -> Any:
        with Image.open(path) as picture:
            return picture.convert(mode)

    def read(image: StoredImage) -> Tensor:
        return torch.from_numpy(image.values) / 255

    return _Pipeline(
        name="timm's create_transform",
        start=start,
        stages=tuple((type(part).__name__, part, steps.get(type(part).__name__)) for part in transforms),
        tensor=lambda state: state if isinstance(state, Tensor) else unit(state),
        affine=lambda state: None,
        read=read,
    )


def _monai(view: SourceView) -> _Pipeline:
    """MONAI's own transforms, those that the bundle names and that were read by name, with their plain arguments."""
    known = monai_module("monai.transforms")
    key = "image"
    ahead = [step for step in view.input.spatial if step.step != "transpose"]
    turned = tuple(step for step in view.input.spatial if step.step == "transpose")
    stages: list[tuple[str, Callable[[Any], Any], tuple[Step, ...] | None]] = []
    for name, arguments in view.pipeline:
        steps: tuple[Step, ...] | None = None
        if name in _ON_THE_GRID:
            steps = (ahead.pop(0),)
        elif name in _ON_THE_VALUES:
            steps = ()
        stages.append((name, getattr(known, name)(keys=[key], **arguments), steps))
    return _Pipeline(
        name="the bundle's own MONAI transforms",
        start=lambda path: {key: str(path)},
        stages=tuple(stages),
        tensor=lambda state: torch.as_tensor(getattr(state[key], "array", state[key])).float(),
        affine=lambda state: _affine_of(state[key]),
        read=lambda image: spatial(torch.from_numpy(image.values), turned, image.affine),
    )


def _affine_of(image: Any) -> Affine | None:
    affine = getattr(image, "affine", None)
    return None if affine is None else tuple(tuple(row) for row in np.asarray(affine, dtype=float).tolist())
