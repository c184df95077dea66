"""A classifier with its input normalisation inside: [0, 1] in, logits out."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from medharden.errors import MedHardenError, ModelError, RangeError
from medharden.foreign import own_place
from medharden.models.given import Normaliser, own_network, rebuilt, require_example, spoken_values
from medharden.models.low_rank import LowRank
from medharden.models.origins import require_order
from medharden.models.outputs import named_output
from medharden.models.source_view import SourceView
from medharden.record import ModelRecord
from medharden.rows import Cases, joined, parts
from medharden.shortage import shortage
from medharden.text import counted, neutral

__all__ = ["Classifier", "check_classifier", "logits_in_batches", "state_digest"]


_FAR = 1e4
_COLOUR = 3
_EACH_CHANNEL = "give each of the model's channels its image, a grey file, by input.channels_from in the protocol"
_PIXELS = (
    ": one value a pixel or a region, as a network for segmentation answers, or one that pools a fixed size and is "
    "given more; expected a classifier, a python: class that makes one logit a class of it, or input.size as it was "
    "trained"
)
# what layers raise on inputs that don't fit them
_UNFIT = (RuntimeError, ValueError, AssertionError, TypeError, LookupError, AttributeError)


class Classifier(nn.Module):
    """Wraps a network so that every model of this package speaks alike.

    Gray input is repeated to the network's channels inside the model: an attacker who can only change gray values
    can't be given three independent channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, record: ModelRecord) -> None:
        """Takes a network with `record.channels` input channels and `record.classes` outputs (one if `one_logit`)."""
        super().__init__()
        self.network = network
        self.record = record
        self.view: SourceView | None = None
        """How its source makes its inputs, where that says so in a way that can be followed."""
        self.low_rank: dict[str, LowRank] = {}  # by weight: what of a `lora` branch's is stored in its place
        shape = (1, record.channels) + (1,) * record.dims
        self.register_buffer("mean", _per_channel(record.mean, record.channels).view(shape))
        self.register_buffer("std", _per_channel(record.std, record.channels).view(shape))
        self.eval()

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        example: Tensor,
        *,
        classes: Sequence[str],
        normaliser: Normaliser | None,
        arch: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        channels: int | None = None,
        multilabel: bool = False,
        output: str | int | None = None,
    ) -> Classifier:
        """A trained module as it is in a notebook or a training script.

        It is copied; the one that was given is neither changed nor kept. It is built again from its name, so that its
        release can be loaded elsewhere; where that gives no or another model, `record.origins` and a finding say so,
        and the release is loaded with such a module at hand: `load_hardened(run, network=module)`.

        Args:
            module: takes normalised input (N, C, *spatial) and answers with (N, K) logits.
            example: (n, C, *spatial) a few inputs in [0, 1], such as `cohort.batch(range(4))[0]`; nothing is fitted to
                them.
            classes: names of the outputs, in their order; of a multi-label task the findings.
            normaliser: what the module was trained with between [0, 1] and its input; null if nothing.
            arch: its name, such as `timm:resnet18` or `python:package.module:function`; null tries timm's own word,
                then its class.
            arguments: of that name's constructor.
            channels: that the module takes, where grey examples are to be repeated to them; null takes the example's.
            multilabel: whether each output is a finding of its own.
            output: key or index of the logits where the module returns several parts.

        Raises:
            ModelError: it is no module, fails on the example, answers with other than one finite logit a class, or
                answers the same input otherwise the second time.
            RangeError: the example leaves [0, 1].
        """
        network, dims = own_network(module), require_example(example)
        example = example.detach().cpu().float()
        state, takes = state_digest(network), channels or example.shape[1]
        record = ModelRecord(
            source="python",
            arch=type(network).__qualname__,
            arguments=dict(arguments or {}),
            classes=len(classes),
            channels=takes,
            dims=dims,
            **spoken_values(normaliser, takes),
            one_logit=False,
            file=f"module:{state}",
            state=state,
            parameters=sum(p.numel() for p in network.parameters()),
            output=output,
            class_names=tuple(classes),
        )
        with torch.no_grad():
            one = _tried(cls(network, record), example).shape[1:].numel() == 1
            record = replace(record, one_logit=one and not multilabel)
        given = cls(network, record)
        check_classifier(given, example, tuple(classes), multilabel=multilabel)

        @torch.no_grad()
        def same(other: nn.Module) -> bool:
            return torch.equal(cls(other, record)(example), given(example))

        if not same(network):
            raise ModelError("the module answers the same input otherwise the second time; is something random in it?")
        again = rebuilt(network, dims, arch, record.arguments, same)
        said = {"module": "given in Python", "mean": "stated", "std": "stated", "class order": "stated"}
        said["built again"] = again.said
        given.record = replace(record, source=again.arch.source, arch=again.arch.name, origins=said)
        return given

    def normalised(self, inputs: Tensor) -> Tensor:
        """(N, C, *spatial) in [0, 1] as the network takes it: z-scores, or less mean by std."""
        if self.record.zscore is not None:
            return _z_scores(inputs, self.record.zscore == "channel", self.record.zscore_nonzero)
        return (inputs - self.mean) / self.std

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of a batch.

        Args:
            inputs: (N, C, *spatial) float32 in [0, 1]; C is the network's channels, or 1.

        Returns:
            (N, K) logits, K >= 2; a one-logit network z becomes (0, z), whose softmax is its sigmoid. Of a
            multi-label task (N, L) logits, one a finding, L >= 1.

        Raises:
            ModelError: the network answers with several parts, and none of them, or none that is there, is named; or
                it is the user's own code, and that stopped.
        """
        return self.answered(self.prepared(inputs))

    def prepared(self, inputs: Tensor) -> Tensor:
        """(N, C, *spatial) in [0, 1] as the network takes it: gray repeated to its channels, then normalised."""
        channels = self.record.channels
        if inputs.shape[1] == 1 and channels > 1:
            inputs = inputs.expand(-1, channels, *inputs.shape[2:])
        return self.normalised(inputs)

    def answered(self, prepared: Tensor, rows: int = 1) -> Tensor:
        """Logits, as `forward` gives them, of what the network itself takes.

        Args:
            prepared: (N, channels, *spatial) float32, normalised.
            rows: that the network answers a case with.

        Returns:
            (rows N, K) logits.
        """
        logits = named_output(self._answer(prepared), self.record.output)
        if self.record.one_logit:
            if logits.shape[1:].numel() != 1 or logits.shape[0] != rows * prepared.shape[0]:
                advice = "; set the number of classes in model.arguments, such as num_classes"
                raise ModelError(
                    f"the network's last layer has one output, the network answers {tuple(logits.shape)} for "
                    f"{len(prepared)} cases{_PIXELS if _like_an_image(logits) else advice}"
                )
            logits = logits.reshape(-1, 1)  # as many as there are cases, in a traced graph too
            return torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits

    def _answer(self, inputs: Tensor) -> Any:
        try:
            return self.network(inputs)
        except MedHardenError:
            raise
        except Exception as error:  # the user's own code may raise anything
            place = own_place(error) if self.record.source == "python" and shortage(error) is None else ""
            if not place:
                raise
            said = neutral((str(error).splitlines() or [""])[0])[:200]
            raise ModelError(
                f"the model's own code stopped on inputs of shape {tuple(inputs.shape)}: {place}{said and ': '}{said}"
            ) from error


def _like_an_image(answer: Tensor) -> bool:
    """Whether an answer has axes of space that are longer than one."""
    return answer.ndim in (4, 5) and answer.shape[2:].numel() > 1


def _z_scores(inputs: Tensor, by_channel: bool, nonzero: bool) -> Tensor:
    """Input less its mean, by its standard deviation (1 where that is 0), as MONAI's `NormalizeIntensity` has it.

    The statistics are part of the graph: they move with the values.
    """
    axes = tuple(range(2 if by_channel else 1, inputs.ndim))
    taken = (inputs != 0).to(inputs.dtype) if nonzero else torch.ones_like(inputs)
    count = taken.sum(axes, keepdim=True).clamp(min=1)
    centred = (inputs - (inputs * taken).sum(axes, keepdim=True) / count) * taken
    variance = centred.square().sum(axes, keepdim=True) / count
    flat = variance <= 0
    return centred / torch.where(flat, torch.ones_like(variance), variance).sqrt()


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    return torch.tensor(values if len(values) == channels else values * channels, dtype=torch.float32)


def state_digest(module: nn.Module) -> str:
    """SHA-256 over every parameter and buffer (non-persistent ones too): name, data type, shape and bytes."""
    digest = hashlib.sha256()
    entries: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    entries.update(module.named_buffers(remove_duplicate=False))
    for name in sorted(entries):
        tensor = entries[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def check_classifier(model: Classifier, inputs: Tensor, classes: tuple[str, ...], *, multilabel: bool = False) -> None:
    """Runs one small batch and checks that the model fits the data.

    Args:
        model: the classifier.
        inputs: (N, C, *spatial) float32 in [0, 1], real cases.
        classes: the cohort's class names, or its findings.
        multilabel: whether they are findings.

    Raises:
        ModelError: the model does not take these inputs, or does not answer with one finite logit a class.
        RangeError: the inputs leave [0, 1].
    """
    low, high = float(inputs.min()), float(inputs.max())
    if low < 0 or high > 1:
        raise RangeError(f"inputs must lie in [0, 1], got [{low:g}, {high:g}]")
    record = model.record
    if inputs.shape[1] not in (1, record.channels):
        plain = record.channels in (1, _COLOUR)
        raise ModelError(
            f"the model takes {counted(record.channels, 'channel')}, the data have {inputs.shape[1]}; "
            + ("set input.channels in the protocol" if plain else _EACH_CHANNEL)
        )
    if inputs.shape[1] == 1 and record.channels not in (1, _COLOUR):
        raise ModelError(
            f"the model takes {record.channels} channels, the data have one: grey is repeated to the {_COLOUR} of "
            f"colour alone; {_EACH_CHANNEL}"
        )
    logits = _tried(model, inputs)
    if logits.ndim != 2:
        image = _PIXELS if _like_an_image(logits) else ""
        raise ModelError(
            f"expected logits of shape (cases, classes), the model returned shape {tuple(logits.shape)}{image}"
        )
    if logits.shape[1] != len(classes):
        what = "findings" if multilabel else "classes"
        raise ModelError(
            f"the model answers {logits.shape[1]} {what}, the data have {len(classes)}: {', '.join(classes)}"
        )
    require_order(record.class_names, classes)
    if float(logits.min()) >= 0.0 and float(logits.max()) <= 1.0 and _answers_probabilities(model, inputs):
        raise ModelError(
            "the network answers with probabilities: it ends in a softmax or a sigmoid, where logits are expected, so "
            "every attack and threshold would be wrong; load it without that layer, which has no weights: by "
            "model.arguments, or by a python: class whose forward stops before it"
        )
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("the model's logits are not finite on the first cases; are mean and std right?")


def _tried(model: Classifier, inputs: Tensor) -> Tensor:
    """The model's answer on its first inputs, or what it lacks."""
    try:
        return model(inputs)  # type: ignore[no-any-return]
    except (ModelError, *_UNFIT) as error:
        cause = error.__cause__ if isinstance(error, ModelError) else error
        if not isinstance(cause, _UNFIT):
            raise
        place = own_place(cause)
        said = (str(cause).splitlines() or [""])[0][:200]
        told = f"{said} ({place})" if said and place else said or place or type(cause).__name__
        raise ModelError(
            f"the model ({model.record.arch}) does not accept inputs of shape {tuple(inputs.shape[1:])}: {told}; "
            "set input.size in the protocol to the size it was trained at"
        ) from cause


def _answers_probabilities(model: Classifier, inputs: Tensor) -> bool:
    """Whether answers stay within [0, 1] however large the layer's become that makes them: logits would not.

    Which layer that is, its outputs tell; one that plays no part in the answer says nothing.
    """
    before = model(inputs)
    outputs = 1 if model.record.one_logit else before.shape[1]
    layers = [
        name
        for name, part in model.network.named_modules()
        if isinstance(weight := getattr(part, "weight", None), Tensor) and weight.ndim >= 2 and len(weight) == outputs
    ]
    bounded = False
    for name in reversed(layers):
        for factor in (-_FAR, _FAR):
            network = copy.deepcopy(model.network)
            for tensor in network.get_submodule(name).parameters(recurse=False):
                tensor.mul_(factor)
            answers = Classifier(network, model.record)(inputs)
            answered = answers[:, 1:] if model.record.one_logit else answers
            if not (float(answered.min()) >= 0.0 and float(answered.max()) <= 1.0):
                return False
            bounded = bounded or not torch.equal(answers, before)
    return bounded


@torch.no_grad()
def logits_in_batches(model: nn.Module, inputs: Cases, batch_size: int) -> Tensor:
    """Logits of many cases, computed in fixed batches: the same batches give the same bits.

    Args:
        model: (N, C, *spatial) in [0, 1] to (N, K) logits.
        inputs: (N, C, *spatial) float32, on the model's device, or read onto it part by part.
        batch_size: cases a forward pass.

    Returns:
        (N, K) logits.
    """
    return joined((model(part) for part in parts(inputs, batch_size)), len(inputs))
