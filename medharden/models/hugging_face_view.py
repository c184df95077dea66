"""How transformers makes a model's inputs, by the `preprocessor_config.json` beside it, in the protocol's terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from medharden.errors import ModelError
from medharden.models.configurations import read_configuration
from medharden.models.source_view import SourceView
from medharden.protocol import Input, Step
from medharden.text import neutral

__all__ = ["PREPROCESSOR_FILE", "preprocessor_beside"]

PREPROCESSOR_FILE = "preprocessor_config.json"

# Pillow's numbers of its filters
_FILTERS: dict[int, Literal["lanczos", "bilinear", "bicubic", "box", "hamming"]] = {
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
_CROPS = {  # whether each crops where the file does not say so
    "BeitImageProcessor": True,
    "BitImageProcessor": True,
    "ConvNextImageProcessor": False,
    "DeiTImageProcessor": True,
    "ViTImageProcessor": False,
}
_READ = {"do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale", "rescale_factor"}
_READ |= {"do_normalize", "image_mean", "image_std", "image_processor_type", "feature_extractor_type"}
# what changes no picture of a classifier: labels are those of segmentations
_IDLE = {"do_convert_rgb", "do_reduce_labels", "reduce_labels", "default_to_square", "data_format", "return_tensors"}
_IDLE |= {"input_data_format", "processor_class", "_processor_class", "device", "disable_grouping", "pad_size"}
_LARGEST_SIDE = 2**13
_WARPED = 384  # from which on ConvNext crops nothing


def preprocessor_beside(weights: Path) -> SourceView | None:
    """The view that the file in the folder of some weights states; null where there is none.

    Raises:
        ModelError: it can't be read, or makes inputs in a way that can't be followed, named.
    """
    file = weights.parent / PREPROCESSOR_FILE
    if not file.is_file():
        return None
    config = read_configuration(file, f"the model's {PREPROCESSOR_FILE}")
    if not isinstance(config, dict):
        raise _unfollowed("a file of another kind")
    named = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = named.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if kind not in _CROPS:
        raise _unfollowed(f"image processor {neutral(named)[:60] or 'without a name'}")
    for key, value in config.items():
        if value and key not in _READ | _IDLE:
            raise _unfollowed(f"{neutral(key)[:40]} {neutral(str(value))[:40]}")
    if config.get("do_resize", True) is not True:
        raise _unfollowed("do_resize false")
    if config.get("do_rescale", True) is not True or abs(_number(config, "rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise _unfollowed("rescaling to other than [0, 1]")
    plain = config.get("do_normalize", True) is False
    mean, std = ((0.0,), (1.0,)) if plain else (_values(config, "image_mean"), _values(config, "image_std"))
    if min(std) <= 0:
        raise _unfollowed("an image_std of 0 and less")
    steps = _steps(config, kind)
    said = [f"{s.step} {'x'.join(map(str, s.size or ()))}{f' {s.mode} {s.fit}' if s.mode else ''}" for s in steps]
    kept = {key: value for key, value in config.items() if key in _READ and not key.endswith("_type")}
    return SourceView(
        input=Input(dims=2, spatial=tuple(steps)),
        steps=(*said, "mean and std"),
        source=PREPROCESSOR_FILE,
        mean=mean,
        std=std,
        held=("dims", "spatial", "size", "fit"),
        pipeline=((kind, kept),),
    )


def _steps(config: Mapping[str, Any], kind: str) -> list[Step]:
    mode = _FILTERS.get(config.get("resample", -1) if type(config.get("resample")) is int else -1)
    if mode is None:
        raise _unfollowed(f"resample {neutral(str(config.get('resample')))[:20]}")
    shortest = kind in ("BitImageProcessor", "ConvNextImageProcessor")
    size, keeps = _size(config, "size", shortest=shortest)
    if kind == "ConvNextImageProcessor":
        if not keeps:
            raise _unfollowed("a size without shortest_edge")
        if size[0] < _WARPED:
            side = int(size[0] / _number(config, "crop_pct", 224 / 256))
            steps = [_resize((side, side), mode, keeps=True), _crop(size, (side, side))]
        else:
            steps = [_resize(size, mode, keeps=False)]
    else:
        steps = [_resize(size, mode, keeps=keeps)]
    crops = config.get("do_center_crop")
    if _CROPS[kind] if crops is None else crops is True:
        steps.append(_crop(_size(config, "crop_size", shortest=False)[0], size))
    return steps


def _resize(size: tuple[int, int], mode: Any, *, keeps: bool) -> Step:
    if not all(1 <= side <= _LARGEST_SIDE for side in size):
        raise _unfollowed(f"a picture of {'x'.join(map(str, size))}")
    return Step(step="resize", size=size, mode=mode, fit="shortest" if keeps else "stretch")


def _crop(size: tuple[int, int], within: tuple[int, int]) -> Step:
    """A crop that begins at floor((have - size) / 2), which is MONAI's place where the size is even."""
    if any(side % 2 for side in size):
        raise _unfollowed(f"a crop to {'x'.join(map(str, size))}, an odd number")
    if any(side > have for side, have in zip(size, within, strict=True)):
        raise _unfollowed("a crop to more than there is, which pads")
    return Step(step="crop", size=size)


def _size(config: Mapping[str, Any], key: str, *, shortest: bool) -> tuple[tuple[int, int], bool]:
    """(H, W), and whether it is the shortest side that is taken to it; a number alone was so in older versions."""
    value = config.get(key)
    if type(value) is int:
        value = {"shortest_edge": value} if shortest else {"height": value, "width": value}
    if isinstance(value, dict):
        stated = {name: side for name, side in value.items() if side is not None}
        whole = all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in stated.values())
        if whole and stated.keys() == {"height", "width"}:
            return (stated["height"], stated["width"]), False
        if whole and stated.keys() == {"shortest_edge"}:
            return (stated["shortest_edge"],) * 2, True
    raise _unfollowed(f"{key} {neutral(str(value))[:60]}")


def _number(config: Mapping[str, Any], key: str, usual: float) -> float:
    value = config.get(key)
    if value is None:
        return usual
    if type(value) not in (int, float) or not 1e-3 <= value <= 1:
        raise _unfollowed(f"{key} {neutral(str(value))[:40]}")
    return float(value)


def _values(config: Mapping[str, Any], key: str) -> tuple[float, ...]:
    value = config.get(key)
    value = [value] if type(value) in (int, float) else value
    if not isinstance(value, list) or len(value) not in (1, 3) or not all(type(v) in (int, float) for v in value):
        raise _unfollowed(f"{key} {neutral(str(value))[:60]}")
    return tuple(float(v) for v in value)


def _unfollowed(what: str) -> ModelError:
    return ModelError(
        f"the model's {PREPROCESSOR_FILE} says how its inputs are made, and medharden can't follow {what}; write the "
        "same as input, model.mean and model.std into the protocol, and say so by model.view: protocol"
    )
