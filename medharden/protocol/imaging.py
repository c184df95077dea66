"""What the model is fed: dimensions, size, and how stored values become [0, 1]."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from medharden.protocol.base import Strict
from medharden.protocol.sourcing import FilePattern

__all__ = ["PILLOW_MODES", "Channel", "Frames", "Input", "Intensity", "Step", "Volume"]

PILLOW_MODES = ("box", "bilinear", "hamming", "bicubic", "lanczos")
"""Modes of a resize that are Pillow's own filters, on 8 bits."""

_TAKES: dict[str, set[str]] = {  # what each step needs
    "transpose": set(),
    "orientation": {"axes"},
    "spacing": {"mm"},
    "foreground": set(),
    "crop": {"size"},
    "pad": {"size"},
    "resize": {"size", "mode"},
}


class Intensity(Strict):
    """How stored values become model input in [0, 1].

    Attributes:
        mode: `file` uses the DICOM file's own first VOI window, and the data type's whole range where there is
            none; `window` maps [low, high] in rescaled units (HU for CT) to [0, 1]; `percentile` maps each case's
            own `low`-th to `high`-th percentile to [0, 1] (for PET and MRI, whose units vary from scan to scan);
            `minmax` maps each case's own smallest and largest value to 0 and 1; `max` maps 0 to 0 and its largest value
            to 1, and refuses negative values, so that zero stays zero for a z-score over non-zero values; `ready` takes
            inputs that lie in [0, 1] already, as a dataset in Python gives them, and refuses files.
        low, high: borders of the window, or percentiles in [0, 100].
        when: `before` the steps of `input.spatial`, or `after` them, on what they leave.
        inverted: `file` inverts what a DICOM file says is inverted (MONOCHROME1); `never` takes values as they are.
    """

    mode: Literal["file", "window", "percentile", "minmax", "max", "ready"] = "file"
    low: float | None = None
    high: float | None = None
    when: Literal["before", "after"] = "before"
    inverted: Literal["file", "never"] = "file"

    @property
    def of_case(self) -> bool:
        """Whether the borders are taken from the case's own values."""
        return self.mode in ("percentile", "minmax", "max")

    @model_validator(mode="after")
    def _consistent(self) -> Intensity:
        if self.mode in ("file", "minmax", "max", "ready"):
            if self.low is not None or self.high is not None:
                raise ValueError(f"input.intensity: mode {self.mode!r} takes no low and high")
            return self
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"input.intensity: mode {self.mode!r} needs low < high")
        if self.mode == "percentile" and (self.low < 0 or self.high > 100):
            raise ValueError("input.intensity: percentiles lie in [0, 100]")
        return self


class Step(Strict):
    """One spatial step on the way to the model's grid.

    Attributes:
        step: `transpose` exchanges a picture's rows and columns, as MONAI's readers give them; `orientation` turns a
            volume's axes; `spacing` resamples a volume to voxels of `mm` (linear, MONAI's own); `foreground` crops to
            the box of values above 0; `crop` cuts `size` from the centre; `pad` adds zeros about it up to `size`;
            `resize` resamples to `size`.
        size: one number an axis.
        mm: one length an axis.
        mode: of `resize`: `area` averages, `linear` and `cubic` (of pictures) interpolate without smoothing, `nearest`
            takes the nearest value;
            `bilinear`, `bicubic`, `lanczos`, `box` and `hamming` are Pillow's filters of a picture, which smooth where
            it shrinks and work on 8 bits: [0, 1] is rounded to 256 levels before and after.
        fit: of `resize`: `stretch` takes each axis to its size; `shortest` keeps the proportions and makes the smallest
            picture that covers `size`. Where `size` is square, its longer side is rounded down, as torchvision's
            `Resize` does, else to the nearest whole number, as timm's `ResizeKeepRatio` does. `longest` keeps the
            proportions and takes the longest axis to the size, the same number for each axis, as MONAI's `Resize` does.
        place: of `crop`, where the centre lies between two values: `monai` takes MONAI's, have // 2 - size // 2;
            `torchvision` takes its `CenterCrop`'s, round((have - size) / 2).
        axes: of `orientation`: three letters, such as `RAS`.
        align_corners: of `resize` in mode `linear` or `cubic`: whether the outermost values stay where they are.
    """

    step: Literal["transpose", "orientation", "spacing", "foreground", "crop", "pad", "resize"]
    size: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    mm: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    mode: Literal["area", "linear", "cubic", "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] | None = (
        None
    )
    fit: Literal["stretch", "shortest", "longest"] = "stretch"
    place: Literal["monai", "torchvision"] = "monai"
    axes: Annotated[str, Field(pattern=r"^[RLAPSI]{3}$")] | None = None
    align_corners: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Step:
        given = {name for name in ("size", "mm", "mode", "axes") if getattr(self, name) is not None}
        if given != _TAKES[self.step]:
            raise ValueError(f"input.spatial: {self.step} takes {', '.join(sorted(_TAKES[self.step])) or 'nothing'}")
        if self.align_corners and self.mode not in ("linear", "cubic"):
            raise ValueError("input.spatial: align_corners is of a resize in mode 'linear' or 'cubic'")
        if self.fit == "longest" and len(set(self.size or ())) != 1:
            raise ValueError("input.spatial: fit 'longest' takes one size, the same number for each axis")
        if self.fit != "stretch" and self.step != "resize":
            raise ValueError("input.spatial: fit is of a resize")
        if self.place != "monai" and self.step != "crop":
            raise ValueError("input.spatial: place is of a crop")
        if self.mode in ("cubic", *PILLOW_MODES) and len(self.size or ()) != 2:
            raise ValueError(f"input.spatial: mode {self.mode!r} is of pictures; expected two numbers as size")
        if self.axes is not None and len({"RLAPSI".index(a) // 2 for a in self.axes}) < 3:
            raise ValueError(f"input.spatial: axes {self.axes!r} name one direction twice")
        return self


_Number = Annotated[int, Field(ge=1)]
_MOST_CHANNELS = 64


Frames = Literal["one", "all", "first", "middle"] | _Number


class Channel(Strict):
    """One channel of a case that is stacked of several images.

    Attributes:
        name: what it is, such as `flair`.
        files: which files are it, by a pattern; null takes images in the order in which a manifest lists them.
    """

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
    files: FilePattern | None = None


def _in_order(given: Any) -> Any:
    """A mapping as a list: canonical JSON, of which digests are made, sorts the keys of a mapping."""
    if isinstance(given, dict):
        return tuple({"name": name, "files": files} for name, files in given.items())
    return tuple(given) if isinstance(given, list) else given


Channels = Annotated[
    tuple[Channel, ...], BeforeValidator(_in_order, json_schema_input_type=dict[str, str | None] | tuple[Channel, ...])
]


class Volume(Strict):
    """Which slices are the volume, where a DICOM file or series holds several in one place (`input.dims: 3`).

    Numbers count from 1, in rising order of what the headers say.

    Attributes:
        series: where one examination has several series in a folder: `one` refuses it, `largest` takes the series of
            most slices, `each` makes each a case. Localisers never count.
        stack: of an enhanced multi-frame file (StackID).
        time: time point, such as a phase of the heart or of a contrast agent.
        echo: by echo time.
        diffusion: by b-value.
        kind: by kind of image (ImageType), such as magnitude and phase.
        acquisition: by AcquisitionNumber.
    """

    series: Literal["one", "largest", "each"] = "one"
    stack: _Number | None = None
    time: _Number | None = None
    echo: _Number | None = None
    diffusion: _Number | None = None
    kind: _Number | None = None
    acquisition: _Number | None = None

    def named(self) -> dict[str, int]:
        """What is named, by name, in the order in which it is applied."""
        every = {name: getattr(self, name) for name in ("stack", "kind", "echo", "diffusion", "time", "acquisition")}
        return {name: number for name, number in every.items() if number is not None}


class Input(Strict):
    """What the model is fed.

    Attributes:
        dims: spatial dimensions, 2 or 3.
        channels: `gray`, `rgb`, or `auto`: colour only where some case has channels that differ.
        channels_from: the modalities of one examination, stacked as channels in this order: name to pattern of the
            files, as `cases.include` has them. Empty where a case is one image.
        size: (H, W) or (D, H, W) that every case is resampled to; null keeps the native size, which must then be
            the same for all.
        fit: `stretch` resamples each axis to the size; `pad` keeps the aspect ratio and pads with the lowest value.
        spatial: steps in their order, in the place of `size` and `fit`.
        volume: which slices are the volume, where files hold several.
        frames: of a DICOM file of several frames, where `dims` is 2: `one` refuses it, `first`, `middle` or a number
            from 1 takes that frame in the order stored, `all` makes each frame a case of the same patient.
        unusable: `refuse` stops at corrupt cases and lists them all; `exclude` leaves them out and records it.
    """

    dims: Literal[2, 3] = 2
    channels: Literal["auto", "gray", "rgb"] = "auto"
    channels_from: Channels = ()
    size: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    fit: Literal["stretch", "pad"] = "stretch"
    intensity: Intensity = Intensity()
    spatial: tuple[Step, ...] = ()
    volume: Volume = Volume()
    frames: Frames = "one"
    unusable: Literal["refuse", "exclude"] = "refuse"

    @model_validator(mode="after")
    def _consistent(self) -> Input:
        if self.size is not None and len(self.size) != self.dims:
            raise ValueError(f"input.size has {len(self.size)} numbers; input.dims is {self.dims}")
        if self.spatial and (self.size is not None or self.fit != "stretch"):
            raise ValueError("input.spatial stands in the place of input.size and input.fit; state one of them")
        if self.intensity.mode == "ready" and (self.spatial or self.size is not None or self.channels != "auto"):
            raise ValueError(
                "input.intensity: mode 'ready' takes inputs as they are given; leave out input.size, input.spatial and "
                "input.channels"
            )
        for step in self.spatial:
            counts = {len(v) for v in (step.size, step.mm) if v is not None}
            if counts - {self.dims}:
                raise ValueError(f"input.spatial: {step.step} has another number of axes than input.dims, {self.dims}")
            if self.dims == 2 and step.step in ("orientation", "spacing"):
                raise ValueError(f"input.spatial: {step.step} is of volumes; input.dims is 2")
            if step.mode in PILLOW_MODES and self.intensity.when == "after":
                raise ValueError(
                    f"input.spatial: mode {step.mode!r} works on [0, 1] as 8 bits, so input.intensity.when is before"
                )
        return self

    @model_validator(mode="after")
    def _of_files(self) -> Input:
        """Whether frames and channels can be meant."""
        if self.frames != "one" and self.dims == 3:
            raise ValueError("input.frames is of pictures; input.dims is 3, where frames are the slices of a volume")
        if self.frames == "all" and self.channels_from:
            raise ValueError(
                "input.frames: all makes each frame a case; input.channels_from stacks images of one frame"
            )
        if len(self.channels_from) == 1 or len(self.channels_from) > _MOST_CHANNELS:
            raise ValueError(f"input.channels_from names 2 to {_MOST_CHANNELS} channels, got {len(self.channels_from)}")
        if len({channel.name for channel in self.channels_from}) < len(self.channels_from):
            raise ValueError("input.channels_from names a channel twice")
        if len({channel.files is None for channel in self.channels_from}) > 1:
            raise ValueError("input.channels_from gives patterns for some channels and not for others")
        if self.channels_from and self.channels == "rgb":
            raise ValueError("input.channels: rgb is of colour; input.channels_from stacks grey images")
        if self.channels_from and self.intensity.mode == "ready":
            raise ValueError("input.channels_from is of files; mode 'ready' takes inputs as they are given")
        return self

    @property
    def patterned(self) -> bool:
        """Whether channels are told by the patterns of their files, and not by the order in which they are listed."""
        return any(channel.files is not None for channel in self.channels_from)

    def at_frame(self, number: int) -> Input:
        """The same view of one frame of a file, from 1; of 0 the view itself."""
        return self.model_copy(update={"frames": number}) if number else self

    @property
    def largest(self) -> int:
        """Values a channel of the largest grid that the protocol itself names; 0 where it names none."""
        return max(math.prod(size) for size in (self.size or (0,), *(step.size or (0,) for step in self.spatial)))
