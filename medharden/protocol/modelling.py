"""What the protocol says of the model: what its file does not, and how its input is normalised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import Strict

__all__ = ["ModelSpec"]


class ModelSpec(Strict):
    """What the model file does not say of itself.

    Attributes:
        arch: `timm:NAME` or `monai:NAME`; `--arch` on the command line names it too, and must agree.
        arguments: constructor arguments, such as `spatial_dims: 3`; numbers, text, booleans and lists of these.
        mean, std: input normalisation of [0, 1] input, one value a channel or one for all; null takes the
            checkpoint's or the architecture's own.
        weights: under which key of the file the weights lie, where it holds several, such as `state_dict_ema`.
        prefix: what stands before each of the network's names in the file; null finds it.
        rename: beginning of a name in the file to what stands in its place, such as `{"encoder.": "", "classifier.":
            "fc."}`; the first that fits holds.
        output: which part of what the network returns holds the logits: a key of its dict, or an index into its tuple,
            from 0; null where it returns one tensor.
        range: [a, b] to which [0, 1] input is mapped inside the model, such as [-1, 1], in the place of mean and std.
        zscore: input less its mean, by its standard deviation, of each `case` or of each `channel` of a case, inside
            the model, in the place of mean and std.
        zscore_nonzero: whether that is over values other than 0 alone, which stay 0.
        view: who answers for how the model's inputs are made: `source`, its bundle, and one that says so is refused
            where that is not followed; `protocol`, `input`, which states the same.
    """

    arch: str | None = None
    arguments: dict[str, int | float | bool | str | list[int] | list[float] | list[str]] = {}
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    weights: Annotated[str, Field(min_length=1)] | None = None
    prefix: Annotated[str, Field(min_length=1)] | None = None
    rename: dict[Annotated[str, Field(min_length=1)], str] = {}
    output: Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)] | None = None
    range: tuple[float, float] | None = None
    zscore: Literal["case", "channel"] | None = None
    zscore_nonzero: bool = False
    view: Literal["source", "protocol"] = "source"

    @model_validator(mode="after")
    def _one_normaliser(self) -> ModelSpec:
        stated = [self.mean is not None or self.std is not None, self.range is not None, self.zscore is not None]
        if sum(stated) > 1:
            raise ValueError("model: state mean and std, range, or zscore; one of them")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError("model.range needs a < b")
        if self.zscore_nonzero and self.zscore is None:
            raise ValueError("model.zscore_nonzero needs model.zscore")
        return self
