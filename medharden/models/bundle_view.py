"""How a MONAI bundle makes its inputs, in the protocol's terms: its transforms, read by name, never run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import ValidationError

from medharden.errors import ModelError
from medharden.models.bundle_values import resolved
from medharden.models.source_view import SourceView
from medharden.protocol import Input, Intensity, Step
from medharden.text import neutral

__all__ = ["bundle_view"]

_IDLE = {"EnsureChannelFirstd", "AsChannelFirstd", "EnsureTyped", "ToTensord", "RepeatChanneld"}
_FLOATS = (None, "torch.float32", "torch.float", "float32")
_BYTES = ("torch.uint8", "uint8")
_BYTE = 255
_PATCHES = "PatchWSIDataset"
_PATCH_READ: tuple[tuple[str, dict[str, Any]], ...] = (
    ("LoadImaged", {"reader": "PILReader", "reverse_indexing": False}),
    ("EnsureChannelFirstd", {}),
)
_MODES = {
    "bicubic": "cubic",
    "area": "area",
    "bilinear": "linear",
    "trilinear": "linear",
    "linear": "linear",
    "nearest": "nearest",
}
_CORNERS = ("linear", "cubic")
_PLAIN: dict[str, Mapping[str, tuple[Any, ...]]] = {  # arguments that must be one of these, beside those that are read
    "LoadImaged": {
        "reader": (None,),
        "dtype": (*_FLOATS, *_BYTES),
        "image_only": (True, False),
        "ensure_channel_first": (True, False),
    },
    "EnsureChannelFirstd": {"channel_dim": (None, -1, 2, "no_channel"), "strict_check": (True, False)},
    "AsChannelFirstd": {"channel_dim": (None, -1)},
    "EnsureTyped": {"data_type": ("tensor",), "device": (None,), "track_meta": (True, False, None), "dtype": _FLOATS},
    "ToTensord": {"dtype": _FLOATS, "track_meta": (True, False, None)},
    "CastToTyped": {"dtype": _FLOATS[1:]},
    "RepeatChanneld": {"repeats": (3,)},
    "Orientationd": {"axcodes": (), "labels": (None,)},
    "Spacingd": {"pixdim": (), "mode": ("bilinear", ["bilinear"]), "padding_mode": ("border",)},
    "CropForegroundd": {"source_key": (), "margin": (0,), "allow_smaller": (True, False), "k_divisible": (1,)},
    "CenterSpatialCropd": {"roi_size": ()},
    "SpatialPadd": {"spatial_size": (), "method": ("symmetric",), "mode": ("constant",)},
    "ResizeWithPadOrCropd": {"spatial_size": (), "method": ("symmetric",), "mode": ("constant",)},
    "Resized": {
        "spatial_size": (),
        "size_mode": ("all", "longest"),
        "mode": (),
        "align_corners": (None, True, False),
        "anti_aliasing": (False,),
    },
    "Transposed": {"indices": ([0, 2, 1],)},
    "ScaleIntensityRangePercentilesd": {
        "lower": (),
        "upper": (),
        "b_min": (),
        "b_max": (),
        "clip": (True,),
        "relative": (False,),
        "channel_wise": (False,),
    },
    "ScaleIntensityd": {"minv": (), "maxv": (), "factor": (None,), "channel_wise": (False,)},
    "ScaleIntensityRanged": {"a_min": (), "a_max": (), "b_min": (), "b_max": (), "clip": (True,)},
    "NormalizeIntensityd": {
        "nonzero": (True, False),
        "channel_wise": (True, False),
        "subtrahend": (),
        "divisor": (),
    },
}
_BESIDE = ("_target_", "_desc_", "_disabled_", "keys", "allow_missing_keys", "meta_keys", "lazy")


@dataclass
class _Reading:
    dims: int
    key: str = ""
    spatial: list[dict[str, Any]] = field(default_factory=list)
    intensity: dict[str, Any] = field(default_factory=dict)
    at: int = 0
    range: tuple[float, float] = (0.0, 1.0)
    zscore: dict[str, Any] | None = None
    oriented: bool = False
    bytes: bool = False


def bundle_view(transforms: Any, config: Mapping[str, Any], dims: int) -> SourceView:
    """Reads a list of transforms.

    Args:
        transforms: a `Compose`, its list, or a reference to one of them.
        config: the whole configuration, for references.
        dims: spatial dimensions of the network.

    Raises:
        ModelError: a transform, or an argument of one, that can't be followed; named.
    """
    listed = resolved(transforms, config)
    if isinstance(listed, dict):
        if str(listed.get("_target_", "")).rpartition(".")[2] != "Compose":
            listed = [listed]
        else:
            listed = resolved(listed.get("transforms", []), config)
    if not isinstance(listed, list):
        raise _unfollowed("its list of transforms")
    reading, names, pipeline = _Reading(dims), [], []
    if dims == 2 and (patches := _patches(listed, config)):
        reading.key, reading.bytes = "image", True
        names, pipeline = [patches], [(name, dict(arguments)) for name, arguments in _PATCH_READ]
    for given in listed:
        transform = resolved(given, config)
        if not isinstance(transform, dict):
            raise _unfollowed("a transform that is an expression")
        name = str(transform.get("_target_", "")).rpartition(".")[2]
        arguments = {k: resolved(v, config) for k, v in transform.items() if k != "_target_"}
        if arguments.pop("_disabled_", False) is True:
            continue
        if _take(reading, name, arguments):
            names.append(name)
            pipeline.append((name, _as_monai_takes(arguments)))
    return replace(_view(reading, tuple(names)), pipeline=tuple(pipeline))


def _patches(listed: list[Any], config: Mapping[str, Any]) -> str:
    """MONAI's dataset that reads patches of slides as (3, H, W) of 8 bits, where no transform loads them; or nothing.

    A patch lies in it as it does in a picture: rows and columns are not exchanged, as `LoadImaged` does.
    """
    dataset = resolved(config.get("dataset", ""), config) if isinstance(config.get("dataset"), dict) else {}
    name = str(dataset.get("_target_", "")).rpartition(".")[2]
    targets = [str(given.get("_target_", "")).rpartition(".")[2] for given in listed if isinstance(given, dict)]
    return neutral(name)[:60] if name.endswith(_PATCHES) and "LoadImaged" not in targets else ""


def _as_monai_takes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a transform on the image alone is made with; a type by its name, as a type of torch."""
    kept = {name: value for name, value in arguments.items() if name not in _BESIDE and name != "source_key"}
    if "source_key" in arguments:
        kept["source_key"] = "image"
    if isinstance(kept.get("dtype"), str):
        kept["dtype"] = getattr(torch, kept["dtype"].rpartition(".")[2])
    return kept


def _take(reading: _Reading, name: str, arguments: dict[str, Any]) -> bool:
    """Adds a transform to what was read; false where it is not about the image."""
    if name == "AddLabelAsGuidanced":
        raise _mask_added(reading)
    if name not in _PLAIN:
        raise _unfollowed(neutral(name)[:60] or "a transform without a name")
    keys = arguments.get("keys", [])
    keys = [keys] if isinstance(keys, str) else keys
    if name == "LoadImaged" and keys and not reading.key:
        reading.key = str(keys[0])
        if reading.dims == 2:
            reading.spatial.append({"step": "transpose"})
    if not reading.key:
        raise _unfollowed(f"{name} before LoadImaged")
    if reading.key not in keys:
        return False
    _require_plain(name, arguments)
    reading.bytes |= name == "LoadImaged" and arguments.get("dtype") in _BYTES
    if name in _IDLE or name in ("LoadImaged", "CastToTyped"):
        return True
    if reading.zscore is not None:
        raise _unfollowed(f"{name} after NormalizeIntensityd")
    if name == "NormalizeIntensityd":
        reading.zscore = arguments
    elif name.startswith("ScaleIntensity"):
        _take_intensity(reading, name, arguments)
    else:
        _take_spatial(reading, name, arguments)
    return True


def _require_plain(name: str, arguments: dict[str, Any]) -> None:
    """Refuses an argument that is not known, or another value of one than is followed."""
    for argument, value in arguments.items():
        if argument in _BESIDE:
            continue
        if argument not in _PLAIN[name]:
            raise _unfollowed(f"{name}({neutral(argument)[:40]}=...)")
        allowed = _PLAIN[name][argument]
        if allowed and value not in allowed:
            raise _unfollowed(f"{name}({argument}={neutral(str(value))[:60]})")


def _take_intensity(reading: _Reading, name: str, arguments: dict[str, Any]) -> None:
    if reading.intensity:
        raise _unfollowed(f"a second {name}")
    reading.at = len(reading.spatial)
    if name == "ScaleIntensityd":
        reading.intensity = {"mode": "minmax"}
        low, high = arguments.get("minv", 0.0), arguments.get("maxv", 1.0)
    elif name == "ScaleIntensityRangePercentilesd":
        if arguments.get("clip") is not True:
            raise _unfollowed(f"{name} without clip=True")
        shares = {"low": _number(arguments, "lower"), "high": _number(arguments, "upper")}
        reading.intensity = {"mode": "percentile", **shares}
        low, high = arguments.get("b_min"), arguments.get("b_max")
    else:
        least, most = _number(arguments, "a_min"), _number(arguments, "a_max")
        within = reading.bytes and least <= 0 and most >= _BYTE  # what is read as 8 bits is never clipped
        if arguments.get("clip") is not True and not within:
            raise _unfollowed("ScaleIntensityRanged without clip=True")
        reading.intensity = {"mode": "window", "low": least, "high": most}
        low, high = arguments.get("b_min"), arguments.get("b_max")
    if not all(type(v) in (int, float) for v in (low, high)) or not low < high:
        raise _unfollowed(f"{name} to [{neutral(str(low))[:20]}, {neutral(str(high))[:20]}]")
    reading.range = (float(low), float(high))


def _take_spatial(reading: _Reading, name: str, arguments: dict[str, Any]) -> None:
    if name == "Orientationd":
        reading.oriented = True
        step: dict[str, Any] = {"step": "orientation", "axes": arguments.get("axcodes")}
    elif name == "Spacingd":
        step = {"step": "spacing", "mm": [float(v) for v in _numbers(reading, arguments, "pixdim")]}
    elif name == "CropForegroundd":
        if arguments.get("source_key", reading.key) != reading.key:
            raise _unfollowed("CropForegroundd by another image")
        step = {"step": "foreground"}
    elif name == "CenterSpatialCropd":
        step = {"step": "crop", "size": _numbers(reading, arguments, "roi_size")}
    elif name in ("SpatialPadd", "ResizeWithPadOrCropd"):
        step = {"step": "pad", "size": _numbers(reading, arguments, "spatial_size")}
        if name == "ResizeWithPadOrCropd":
            reading.spatial.append(step)
            step = {"step": "crop", "size": step["size"]}
    elif name == "Transposed":
        if reading.dims != 2:
            raise _unfollowed("Transposed of volumes; Orientationd says which way their axes run")
        step = {"step": "transpose"}
    else:
        mode = str(arguments.get("mode", "area"))
        if mode not in _MODES:
            raise _unfollowed(f"Resized(mode={neutral(mode)[:40]})")
        step = {"step": "resize", "size": _numbers(reading, arguments, "spatial_size"), "mode": _MODES[mode]}
        step |= {"align_corners": True} if arguments.get("align_corners") and _MODES[mode] in _CORNERS else {}
        step |= {"fit": "longest"} if arguments.get("size_mode", "all") == "longest" else {}
    reading.spatial.append(step)


def _view(reading: _Reading, names: tuple[str, ...]) -> SourceView:
    if not reading.key:
        raise _unfollowed("no LoadImaged")
    if reading.dims == 3 and not reading.oriented:
        raise _unfollowed("volumes without Orientationd, whose axes are then each file's own")
    mean, std = _constants(reading)
    nonzero = bool((reading.zscore or {}).get("nonzero", False))
    before = [s for s in reading.spatial[: reading.at] if s["step"] not in ("transpose", "orientation")]
    behind = reading.spatial[reading.at :]
    if reading.intensity and before and behind:
        raise _unfollowed("an intensity transform between two that change the grid")
    if any(step.get("mode") == "cubic" for step in (behind if reading.intensity else reading.spatial)):
        raise _unfollowed("Resized(mode=bicubic) without an intensity transform after it: it leaves the values' range")
    if not reading.intensity:
        cropped = any(s["step"] in ("foreground", "pad") for s in reading.spatial)
        reading.intensity = {"mode": "max" if nonzero or cropped or reading.zscore is None else "minmax"}
        if reading.zscore is None:
            raise _unfollowed("no ScaleIntensityd, ScaleIntensityRanged or NormalizeIntensityd: values as they are")
    elif before:
        reading.intensity["when"] = "after"
    if reading.zscore is not None and nonzero and reading.range[0] != 0:
        raise _unfollowed("NormalizeIntensityd(nonzero=True) after a range that does not begin at 0")
    if any(s["step"] in ("foreground", "pad") for s in behind) and reading.range[0] != 0:
        raise _unfollowed("a crop to the foreground, or a pad, after a range that does not begin at 0")
    reading.intensity["inverted"] = "never"
    try:
        steps = tuple(Step.model_validate({k: _frozen(v) for k, v in s.items()}) for s in reading.spatial)
        spec = Input(dims=3 if reading.dims == 3 else 2, spatial=steps, intensity=Intensity(**reading.intensity))
    except ValidationError as error:
        raise _unfollowed(neutral(error.errors(include_url=False)[0]["msg"])[:200]) from None
    zscore = None if reading.zscore is None else "channel" if reading.zscore.get("channel_wise") else "case"
    if mean is not None:
        return SourceView(spec, steps=names, mean=mean, std=std)
    return SourceView(spec, reading.range, zscore, nonzero, names)


def _constants(reading: _Reading) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std over [0, 1] of a NormalizeIntensityd by stated numbers, which is then no z-score; else null."""
    stated = reading.zscore or {}
    less, by = stated.get("subtrahend"), stated.get("divisor")
    if less is None and by is None:
        return None, None
    if less is None or by is None or not reading.intensity or stated.get("nonzero"):
        raise _unfollowed(
            "NormalizeIntensityd by stated numbers without both of them, without an intensity transform before it, or "
            "over non-zero values"
        )
    less, by = (value if isinstance(value, list) else [value] for value in (less, by))
    if not all(type(v) in (int, float) for v in (*less, *by)) or not all(v > 0 for v in by):
        raise _unfollowed("NormalizeIntensityd by what are no numbers, or by 0 and less")
    if (len(less) > 1 or len(by) > 1) and not stated.get("channel_wise"):
        raise _unfollowed("NormalizeIntensityd by several numbers without channel_wise=True")
    low, high = reading.range
    reading.zscore = None
    return tuple((v - low) / (high - low) for v in less), tuple(v / (high - low) for v in by)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _number(arguments: dict[str, Any], name: str) -> float:
    value = arguments.get(name)
    if type(value) not in (int, float):
        raise _unfollowed(f"{name}={neutral(str(value))[:40]}")
    return float(value)  # type: ignore[arg-type]


def _numbers(reading: _Reading, arguments: dict[str, Any], name: str) -> list[Any]:
    value = arguments.get(name)
    value = [value] * reading.dims if type(value) in (int, float) else value
    if not isinstance(value, list) or not all(type(v) in (int, float) for v in value):
        raise _unfollowed(f"{name}={neutral(str(value))[:40]}")
    return value


def _mask_added(reading: _Reading) -> ModelError:
    """Why a picture alone is no input of a network that takes a mask beside it, and how both are given."""
    low, high = reading.range
    mean, std = -low / (high - low), 1 / (high - low)
    spatial = "spatial: [{step: transpose}], " if reading.spatial[:1] == [{"step": "transpose"}] else ""
    return ModelError(
        "the bundle's AddLabelAsGuidanced adds a mask as a further channel, so a picture alone is not the model's "
        "input, and medharden does not follow it. Write each channel to a grey file of its own (the mask as 0 and 255) "
        f"and state input: {{{spatial}intensity: {{mode: window, low: 0, high: 255, inverted: never}}, channels_from: "
        "{red: '*_r.png', green: '*_g.png', blue: '*_b.png', mask: '*_mask.png'}}, "
        f"model: {{view: protocol, mean: [{mean:g}, {mean:g}, {mean:g}, 0], std: [{std:g}, {std:g}, {std:g}, 1]}}"
    )


def _unfollowed(what: str) -> ModelError:
    return ModelError(
        f"the bundle says how its inputs are made, and medharden can't follow {what}; write the same as input, "
        "model.mean and model.std into the protocol, and say so by model.view: protocol"
    )
