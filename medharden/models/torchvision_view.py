"""torchvision's word on weights of its own that an architecture names: their `weights.transforms()`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from medharden.errors import ModelError
from medharden.models.source_view import SourceView
from medharden.models.timm_import import timm_module
from medharden.protocol import PILLOW_MODES, Input, Step
from medharden.text import neutral

__all__ = ["torchvision_assumed", "torchvision_builder", "torchvision_transforms", "torchvision_view"]

_SOURCE = "torchvision's weights"
_INPUTS_OF_ITS_OWN = ("inception_v3", "googlenet")  # which, with weights, take ImageNet's normalisation for their own


def torchvision_builder(name: str) -> tuple[Any, dict[str, Any]]:
    """What builds `NAME` or `NAME.WEIGHTS`, and arguments that torchvision itself gives it.

    Raises:
        ModelError: torchvision has no such classifier, or no such weights of it.
    """
    timm_module()  # declares what an import of torchvision may lack
    models = importlib.import_module("torchvision.models")
    base, _, tag = name.partition(".")
    known = models.list_models(module=models)
    if base not in known:
        near = difflib.get_close_matches(base, known, n=3)
        raise ModelError(f"torchvision has no classifier {neutral(base)[:60]!r}; near: {', '.join(near) or 'none'}")
    given: dict[str, Any] = {"weights": None}
    if base in _INPUTS_OF_ITS_OWN:
        given["init_weights"] = False  # they are loaded
    if tag:
        _weights(name)
        given |= {"transform_input": True} if base in _INPUTS_OF_ITS_OWN else {}
    return models.get_model_builder(base), given


def torchvision_assumed(name: str, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """What no file of torchvision's says, where the architecture names no weights and the protocol does not say it."""
    if name not in _INPUTS_OF_ITS_OWN or "transform_input" in arguments:
        return ()
    return (
        f"torchvision:{name} normalises its input once more where it was made with ImageNet's weights, and no file "
        "says so: that it does not is assumed; state model.arguments: {transform_input: true} or false, or name the "
        f"weights, torchvision:{name}.IMAGENET1K_V1",
    )


def torchvision_transforms(name: str) -> Any:
    """`weights.transforms()` of `NAME.WEIGHTS`."""
    return _weights(name).transforms()


def torchvision_view(name: str) -> SourceView | None:
    """How the weights that an architecture names, such as `resnet50.IMAGENET1K_V2`, were evaluated; null without.

    Raises:
        ModelError: no such weights, or transforms that can't be followed.
    """
    if "." not in name:
        return None
    made = torchvision_transforms(name)
    mode = str(getattr(made.interpolation, "value", made.interpolation))
    sizes = [list(getattr(made, part)) for part in ("resize_size", "crop_size")]
    if mode not in PILLOW_MODES or any(len(size) != 1 for size in sizes):
        raise ModelError(
            f"torchvision's {name} makes its inputs by {neutral(mode)[:40]} to {sizes[0]}, and medharden can't follow "
            "it; write the same as input, model.mean and model.std into the protocol, and leave the weights' name out"
        )
    scaled, cut = ((size[0], size[0]) for size in sizes)
    steps = (
        Step(step="resize", size=scaled, mode=mode, fit="shortest"),  # type: ignore[arg-type]
        Step(step="crop", size=cut, place="torchvision"),
    )
    return SourceView(
        input=Input(dims=2, spatial=steps),
        steps=(f"resize shortest {scaled[0]} {mode}", f"crop {cut[0]}x{cut[1]}", "mean and std"),
        source=_SOURCE,
        mean=tuple(float(v) for v in made.mean),
        std=tuple(float(v) for v in made.std),
        held=("dims", "spatial", "size", "fit"),
        pipeline=(("weights.transforms", {"name": name}),),
    )


def _weights(name: str) -> Any:
    base, _, tag = name.partition(".")
    every = importlib.import_module("torchvision.models").get_model_weights(base)
    if tag not in every.__members__:
        raise ModelError(
            f"torchvision's {base} has no weights {neutral(tag)[:60]!r}; it has {', '.join(every.__members__)}"
        )
    return every[tag]
