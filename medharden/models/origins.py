"""Where each thing that the file need not say came from: from it, from the protocol, or from nobody, and so assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from medharden.errors import ModelError
from medharden.models.naming import Matched
from medharden.models.weights import Weights
from medharden.protocol import ModelSpec

__all__ = ["Numbers", "Origins", "normalisation", "origins", "require_order"]

_XRAYS = ", or model.range: [-1024, 1024] if it is one of torchxrayvision's"
Numbers = tuple[float, ...]
"""One value a channel, or one for all."""


@dataclass(frozen=True)
class Origins:
    """What a classifier is presented with beside its weights.

    Attributes:
        mean, std: one value a channel, or one for all.
        said: part, such as `mean and std`, to where it came from.
        assumed: sentences on what nothing confirms.
    """

    mean: Numbers
    std: Numbers
    said: dict[str, str]
    assumed: tuple[str, ...]


def origins(network: nn.Module, weights: Weights, found: Matched, spec: ModelSpec, channels: int) -> Origins:
    """Mean and std: the protocol's, else the checkpoint's, else timm's for the name, else 0 and 1; and what was done.

    Args:
        network: as built; timm's knows its configuration.
        weights: of the file.
        found: names as matched.
        spec: the protocol's word.
        channels: that the network takes.

    Raises:
        ModelError: values that are not one a channel.
    """
    config: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    values: dict[str, Numbers] = {}
    sources: dict[str, str] = {}
    for name, nothing in (("mean", 0.0), ("std", 1.0)):
        stated = _stated(spec, name)
        if stated is not None and channels == 1 < len(stated):
            raise ModelError(
                f"model.{name} states {len(stated)} values and the model takes one channel; expected one, such as "
                f"their average [{sum(stated) / len(stated):.4g}], which timm takes for grey input"
            )
        ours = ("protocol", stated), (weights.source, getattr(weights, name))
        theirs = ("timm's default for this name: assumed", config.get(name)), ("nothing says: assumed", (nothing,))
        sources[name], value = next((source, value) for source, value in (*ours, *theirs) if value)
        values[name] = _fit(tuple(value), channels, name)
        if len(value) > 1 and channels == 1:
            sources[name] += f" (the average of {len(value)} values, for one channel)"
    said = dict(sources)
    said |= {f"weights {n}": text for n, text in enumerate((*weights.said, *found.said), 1)}
    said["class order"] = weights.source if weights.classes else "task.classes, or the data's names sorted: assumed"
    assumed = list(found.assumed)
    guessed = [name for name, source in sources.items() if "assumed" in source]
    if guessed:
        shown = " and ".join(f"{name} {_shown(values[name])} ({sources[name].partition(':')[0]})" for name in guessed)
        keys = " and ".join(f"model.{name}" for name in guessed)
        assumed.append(
            f"{shown}: the file does not say what the model was trained with, and another normalisation is another "
            f"model; state {keys} in the protocol"
            + (_XRAYS if channels == 1 and "features.conv0.weight" in network.state_dict() else "")
        )
    return Origins(values["mean"], values["std"], said, tuple(assumed))


def normalisation(spec: ModelSpec, channels: int) -> tuple[Numbers, Numbers]:
    """Mean and std as a protocol's word alone gives them; 0 and 1 where it has none.

    Raises:
        ModelError: values that are not one a channel.
    """
    mean, std = (_stated(spec, name) or (nothing,) for name, nothing in (("mean", 0.0), ("std", 1.0)))
    return _fit(mean, channels, "mean"), _fit(std, channels, "std")


def _stated(spec: ModelSpec, name: str) -> Numbers | None:
    """Mean or std by the protocol: its own, those of its range [a, b], which is x (b - a) + a, or none."""
    if spec.zscore is not None:
        return (0.0,) if name == "mean" else (1.0,)
    if spec.range is not None:
        low, high = spec.range
        return (-low / (high - low),) if name == "mean" else (1 / (high - low),)
    return spec.mean if name == "mean" else spec.std


def require_order(named: Sequence[str], classes: tuple[str, ...]) -> None:
    """Holds the names of the model's outputs against the cohort's classes.

    Args:
        named: by the model's file, in the order of its outputs; empty where it names none.
        classes: the cohort's.

    Raises:
        ModelError: another order, or other names.
    """
    if not named or [_plain(n) for n in named] == [_plain(c) for c in classes]:
        return
    ours, theirs = sorted(map(_plain, classes)), sorted(map(_plain, named))
    if ours == theirs:
        raise ModelError(
            f"the model's file names its outputs in the order {', '.join(named)}, the data are taken in the order "
            f"{', '.join(classes)}: each answer would be read as another class; set task.classes: [{', '.join(named)}]"
        )
    if len(named) == len(classes):
        raise ModelError(
            f"the model's file names its outputs {', '.join(named)}, the data's classes are {', '.join(classes)}; name "
            "the data's classes as the model does, in its order, or take the names out of the model's file"
        )


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum()) or name


def _fit(values: Numbers, channels: int, name: str) -> Numbers:
    if len(values) in (1, channels):
        return tuple(float(v) for v in values)
    if channels == 1:  # as timm does for gray input: the average of the colour values
        return (sum(values) / len(values),)
    raise ModelError(f"{name} has {len(values)} values, the model takes {channels} channels; set model.{name}")


def _shown(values: Numbers) -> str:
    return ", ".join(f"{v:.4g}" for v in values)
