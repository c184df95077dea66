"""What the model is fed: dimensions, size, and how stored values become [0, 1]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import Strict

__all__ = ["Input", "Intensity", "Volume"]


class Intensity(Strict):
    """How stored values become model input in [0, 1].

    Attributes:
        mode: `file` uses the DICOM file's own first VOI window, and the data type's whole range where there is
            none; `window` maps [low, high] in rescaled units (HU for CT) to [0, 1]; `percentile` maps each case's
            own `low`-th to `high`-th percentile to [0, 1] (for PET and MRI, whose units vary from scan to scan).
        low, high: borders of the window, or percentiles in [0, 100].
    """

    mode: Literal["file", "window", "percentile"] = "file"
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Intensity:
        if self.mode == "file":
            if self.low is not None or self.high is not None:
                raise ValueError("input.intensity: mode 'file' takes no low and high")
            return self
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"input.intensity: mode {self.mode!r} needs low < high")
        if self.mode == "percentile" and (self.low < 0 or self.high > 100):
            raise ValueError("input.intensity: percentiles lie in [0, 100]")
        return self


_Number = Annotated[int, Field(ge=1)]


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
        size: (H, W) or (D, H, W) that every case is resampled to; null keeps the native size, which must then be
            the same for all.
        fit: `stretch` resamples each axis to the size; `pad` keeps the aspect ratio and pads with the lowest value.
        volume: which slices are the volume, where files hold several.
        unusable: `refuse` stops at corrupt cases and lists them all; `exclude` leaves them out and records it.
    """

    dims: Literal[2, 3] = 2
    channels: Literal["auto", "gray", "rgb"] = "auto"
    size: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    fit: Literal["stretch", "pad"] = "stretch"
    intensity: Intensity = Intensity()
    volume: Volume = Volume()
    unusable: Literal["refuse", "exclude"] = "refuse"

    @model_validator(mode="after")
    def _consistent(self) -> Input:
        if self.size is not None and len(self.size) != self.dims:
            raise ValueError(f"input.size has {len(self.size)} numbers; input.dims is {self.dims}")
        return self
