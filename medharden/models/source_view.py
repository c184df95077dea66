"""How a model's own source says that its inputs are made, in the protocol's terms, held against what it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medharden.errors import ModelError
from medharden.protocol import Input, ModelSpec

__all__ = ["SourceView", "require_fed", "view_fields", "view_lines"]

_ROUNDED = 1e-4  # an average that was copied to four digits


@dataclass(frozen=True)
class SourceView:
    """What a bundle's transforms, or timm's configuration, come to.

    Attributes:
        input: dims, channels, spatial steps and intensity in the protocol's terms.
        range: to which the network's input is mapped.
        zscore: `case` or `channel`, where the network is fed z-scores.
        nonzero: whether over values other than 0 alone.
        steps: names of the transforms, in their order.
        source: who says so: `bundle`, `checkpoint`, `torchvision's weights`, or the name of a file.
        mean, std: in the place of range and zscore; null where the source has none.
        held: which parts of `input` the source speaks of.
        pipeline: the team's own, by name with plain arguments: a bundle's transforms, timm's `create_transform`,
            torchvision's `weights.transforms`, or an image processor of transformers.
    """

    input: Input
    range: tuple[float, float] = (0.0, 1.0)
    zscore: str | None = None
    nonzero: bool = False
    steps: tuple[str, ...] = ()
    source: str = "bundle"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    held: tuple[str, ...] = ("dims", "spatial", "intensity", "size", "fit")
    pipeline: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    @property
    def whose(self) -> str:
        """The source as the subject of a sentence."""
        plain = {"bundle": "the bundle", "checkpoint": "the checkpoint", "torchvision's weights": self.source}
        return plain.get(self.source, f"the model's {self.source}")


def require_fed(spec: ModelSpec, view: SourceView, fed: Input | None) -> ModelSpec:
    """The model's normaliser as its source has it, where the protocol feeds it likewise.

    Args:
        spec: the protocol's word on the model.
        view: the source's.
        fed: the protocol's input; null where nobody says what the model is fed.

    Raises:
        ModelError: the protocol's input, or its normaliser, is another than the source's.
    """
    if fed is None or any(getattr(fed, part) != getattr(view.input, part) for part in view.held):
        raise ModelError(
            f"{view.whose} says how its inputs are made ({', '.join(view.steps)}), and the protocol's input is "
            f"another; set {view_lines(view)}, or answer for another input by model.view: protocol"
        )
    theirs = _normaliser(view)
    stated = {name for name in theirs if not _alike(getattr(spec, name), theirs[name])}
    if stated:
        raise ModelError(
            f"{view.whose} normalises its inputs otherwise than the protocol's model.{min(stated)}; leave it out, or "
            "answer for it by model.view: protocol"
        )
    return spec.model_copy(update=theirs)


def _alike(stated: Any, theirs: Any) -> bool:
    """Whether what the protocol states is the source's, or, of one channel, the average of the source's values."""
    if stated in (None, False, theirs):
        return True
    if not isinstance(stated, tuple) or not isinstance(theirs, tuple) or len(stated) != 1:
        return False
    return bool(abs(stated[0] - sum(theirs) / len(theirs)) < _ROUNDED)


def _normaliser(view: SourceView) -> dict[str, Any]:
    """The fields of the protocol's `model` that state the source's normaliser."""
    plain = view.zscore is None and view.range == (0.0, 1.0)
    mean, std = view.mean or ((0.0,) if plain else None), view.std or ((1.0,) if plain else None)
    return {
        "mean": mean,
        "std": std,
        "range": None if plain or view.zscore else view.range,
        "zscore": view.zscore,
        "zscore_nonzero": view.nonzero,
    }


def view_lines(view: SourceView) -> str:
    """What a protocol states of the view, in YAML's flow style and one line."""
    return f"input: {{dims: {view.input.dims}, {', '.join(f'{k}: {v}' for k, v in view_fields(view).items())}}}"


def view_fields(view: SourceView) -> dict[str, str]:
    """By field of the protocol's `input` that the source speaks of, its value in YAML's flow style."""
    fields = {"spatial": f"[{', '.join(_flow(s.model_dump(exclude_defaults=True)) for s in view.input.spatial)}]"}
    if "intensity" in view.held:
        fields["intensity"] = _flow(view.input.intensity.model_dump(exclude_defaults=True))
    return fields


def _flow(part: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{k}: {list(v) if isinstance(v, tuple) else v}" for k, v in part.items()) + "}"
