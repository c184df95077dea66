"""timm's word on a model: the `config.json` of its Hugging Face folders, or the arguments that its training keeps."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medharden.errors import ModelError
from medharden.models.configurations import read_configuration
from medharden.models.hugging_face import CLASSIFIERS, config_arguments
from medharden.models.source_view import SourceView
from medharden.models.timm_import import timm_module
from medharden.models.weights import class_names
from medharden.protocol import PILLOW_MODES, Input, Step
from medharden.text import neutral

__all__ = [
    "CONFIG_FILE",
    "TimmConfig",
    "config_beside",
    "config_of_checkpoint",
    "normaliser",
    "timm_view",
    "weights_of_folder",
]

CONFIG_FILE = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_LARGEST_SIDE = 2**13
_LARGEST_SHARE = 4.0
_KEPT = ("input_size", "img_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "in_chans")
_TRAINING = ("crop_pct", "interpolation")  # which timm's train.py keeps, be they null
_WAY_ROUND = "write the same as input, model.mean and model.std into the protocol, and say so by model.view: protocol"


@dataclass(frozen=True)
class TimmConfig:
    """What timm says of a model beside its weights.

    Attributes:
        source: `config.json` or `checkpoint`.
        arch: name of the architecture, `transformers:CLASS` of one of transformers; null where it names none.
        arguments: of its constructor.
        data: `input_size`, `interpolation`, `crop_pct`, `crop_mode`, `mean` and `std`, as far as it states them.
        classes: names of the outputs, in their order.
        left: what of it was not followed.
        arguments_of_training: whether `data` are those, which stand before the architecture's defaults.
    """

    source: str
    arch: str | None
    data: Mapping[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    arguments_of_training: bool = False


def config_beside(weights: Path, *, code: bool = False) -> TimmConfig | None:
    """The `config.json` in the folder of a file of weights; null where there is none.

    Args:
        weights: the file.
        code: whether the user names Python code as the architecture, which may be built by what transformers says.

    Raises:
        ModelError: it can't be read, or is of a model that is not built.
    """
    file = weights.parent / CONFIG_FILE
    if not file.is_file():
        return None
    config = read_configuration(file, f"the model's {CONFIG_FILE}")
    config = config if isinstance(config, dict) else {}
    if isinstance(config.get("architecture"), str) or isinstance(config.get("pretrained_cfg"), dict):
        return _of_folder(config)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        return TimmConfig(CONFIG_FILE, None, {}, left=(f"{CONFIG_FILE} beside the weights is not of timm: not read",))
    if not code:
        return _of_transformers(kind, config)
    left = [f"of {CONFIG_FILE} beside the weights the names of the outputs alone were read"]
    if (weights.parent / "preprocessor_config.json").is_file():
        left.append("preprocessor_config.json was not read: input, model.mean and model.std must say the same")
    return TimmConfig(CONFIG_FILE, None, {}, classes=class_names(config), left=tuple(left))


def _of_folder(config: dict[str, Any]) -> TimmConfig:
    trained = config.get("pretrained_cfg")
    trained = trained if isinstance(trained, dict) else {}
    arch = config.get("architecture", trained.get("architecture"))
    arguments = config.get("model_args", {})
    if not isinstance(arguments, dict):
        raise ModelError(f"the model's {CONFIG_FILE} has model_args that are no arguments by name")
    data = {name: trained[name] for name in _KEPT if trained.get(name) is not None}
    if not data:
        return TimmConfig(CONFIG_FILE, arch, {}, arguments, class_names(config), ("it says nothing of the inputs",))
    left = tuple(
        f"{name} {neutral(str(trained[name]))[:40]} was left aside, as timm's resolve_data_config leaves it"
        for name in ("test_input_size", "test_crop_pct")
        if trained.get(name) not in (None, trained.get(name.removeprefix("test_")))
    )
    return TimmConfig(CONFIG_FILE, arch, data, arguments, class_names(config) or class_names(trained), left)


def _of_transformers(kind: str, config: Mapping[str, Any]) -> TimmConfig:
    classes = config.get("architectures")
    named = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else "its own class"
    if named in CLASSIFIERS:
        return TimmConfig(
            CONFIG_FILE, f"transformers:{named}", {}, config_arguments(named, config), class_names(config)
        )
    raise ModelError(
        f"{CONFIG_FILE} is of transformers ({neutral(kind)[:60]}, {neutral(named)[:80]}), none of its classes that are "
        f"built ({', '.join(CLASSIFIERS)}); name a function that makes it as --arch python:MODULE:FUNCTION, such as "
        "def make(): return AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(FOLDER)), with "
        "model.output: logits, and state input, model.mean and model.std as its preprocessor_config.json has them"
    )


def config_of_checkpoint(
    arch: str | None, trained: Mapping[str, Any], arguments: Mapping[str, Any]
) -> TimmConfig | None:
    """What a checkpoint says in timm's words: its `pretrained_cfg`, or the arguments of timm's training, with which it
    evaluated too; null where it has neither.

    Args:
        arch: that the checkpoint names.
        trained: its `pretrained_cfg`.
        arguments: its `args`, plain values.
    """
    if arch is None or ":" in arch:
        return None
    if data := {name: trained[name] for name in _KEPT if trained.get(name) is not None}:
        return TimmConfig("checkpoint", arch, data)
    if not all(name in arguments for name in _TRAINING):
        return None
    data = {name: arguments[name] for name in _KEPT if arguments.get(name) is not None}
    return TimmConfig("checkpoint", arch, data, arguments_of_training=True)


def normaliser(config: TimmConfig) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std as the configuration states them; null where it does not.

    Raises:
        ModelError: a value that can't be one.
    """
    data = _plain(config.data)
    mean, std = (None if data.get(name) is None else tuple(map(float, data[name])) for name in ("mean", "std"))
    return mean, std


def timm_view(config: TimmConfig, arch: str) -> SourceView | None:
    """How timm's `create_transform` makes inputs for evaluation, with what `resolve_data_config` finds; null if it
    says nothing.

    Args:
        config: as read.
        arch: timm's name of the architecture; what a training does not state is its default.

    Raises:
        ModelError: a value that can't be one, or a way of making inputs that can't be followed; named.
    """
    if not config.arguments_of_training and not config.data:
        return None
    timm = timm_module()
    if not config.arguments_of_training:
        given: dict[str, Any] = {"pretrained_cfg": _plain(config.data)}
    else:
        known = timm.get_pretrained_cfg(arch) if timm.is_model(arch.split(".")[0]) else None
        given = {"args": _plain(config.data), "pretrained_cfg": {} if known is None else known.to_dict()}
    try:
        found = importlib.import_module("timm.data").resolve_data_config(**given)
    except (AssertionError, TypeError, ValueError, LookupError):
        raise _unfollowed(config, "the sizes or numbers of channels") from None
    return _view(config, found)


def _view(config: TimmConfig, found: Mapping[str, Any]) -> SourceView:
    size, share, mode = tuple(found["input_size"])[-2:], float(found["crop_pct"]), found["interpolation"]
    if mode not in PILLOW_MODES:
        raise _unfollowed(config, f"interpolation {neutral(str(mode))[:40]}")
    if found["crop_mode"] not in ("center", "squash"):
        raise _unfollowed(config, f"crop_mode {neutral(str(found['crop_mode']))[:40]}")
    scaled = tuple(math.floor(side / share) for side in size)
    if not all(1 <= side <= _LARGEST_SIDE for side in (*size, *scaled)):
        raise _unfollowed(config, f"a picture of {'x'.join(map(str, scaled))}")
    fit: Literal["shortest", "stretch"] = "shortest" if found["crop_mode"] == "center" else "stretch"
    steps = [Step(step="resize", size=scaled, mode=mode, fit=fit)]
    if share > 1:
        steps.append(Step(step="pad", size=size))
    if fit == "shortest" or scaled != size:
        steps.append(Step(step="crop", size=size, place="torchvision"))
    said = [f"resize {fit} {'x'.join(map(str, scaled))} {mode}", f"crop {'x'.join(map(str, size))}"]
    mean, std = (tuple(float(v) for v in found[name]) for name in ("mean", "std"))
    return SourceView(
        input=Input(dims=2, spatial=tuple(steps)),
        steps=(*said, "mean and std"),
        source=config.source,
        mean=mean,
        std=std,
        held=("dims", "spatial", "size", "fit"),
        pipeline=(("create_transform", dict(found)),),
    )


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration, each held to be of its kind.

    Raises:
        ModelError: one is not.
    """
    kinds: dict[str, Callable[[Any], bool]] = {
        "input_size": lambda v: _whole(v, 3),
        "img_size": lambda v: _whole([v], 1),
        "in_chans": lambda v: _whole([v], 1),
        "interpolation": lambda v: isinstance(v, str),
        "crop_mode": lambda v: isinstance(v, str),
        "crop_pct": lambda v: type(v) in (int, float) and 0.01 <= v <= _LARGEST_SHARE,
        "mean": lambda v: _numbers(v, -1e6),
        "std": lambda v: _numbers(v, 0.0),
    }
    for name, value in data.items():
        if not kinds[name](value):
            raise ModelError(f"the model's configuration has {name} {neutral(str(value))[:60]!r}; {_WAY_ROUND}")
    return dict(data)


def _whole(value: Any, count: int) -> bool:
    right = isinstance(value, (list, tuple)) and len(value) == count
    return right and all(type(v) is int and 1 <= v <= _LARGEST_SIDE for v in value)


def _numbers(value: Any, above: float) -> bool:
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 4:
        return False
    return all(type(v) in (int, float) and above < v < 1e6 for v in value)


def _unfollowed(config: TimmConfig, what: str) -> ModelError:
    whose = "the checkpoint" if config.source == "checkpoint" else f"the model's {config.source}"
    return ModelError(f"{whose} says how its inputs are made, and medharden can't follow {what}; {_WAY_ROUND}")


def weights_of_folder(folder: Path) -> Path:
    """The file of weights in a Hugging Face folder.

    Raises:
        ModelError: there is none, or they are in several files.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    parts = any((folder / f"{name}.index.json").is_file() for name in _WEIGHTS)
    raise ModelError(
        f"the folder has {CONFIG_FILE} and no weights in one file: expected {' or '.join(_WEIGHTS)}"
        + ("; they are in several: save them with a larger max_shard_size" if parts else "")
    )
