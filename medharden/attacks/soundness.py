"""Whether a suite's result can be believed: signs that a model hides from the attacks rather than withstands them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from medharden.attacks.projections import project, steepest
from medharden.attacks.victim import Tally, Victim
from medharden.protocol import ThreatModel
from medharden.record import Finding

__all__ = ["Signs", "climbs", "findings", "look_like_probabilities", "repeats", "slopes_repeat"]

BLIND_SHARE = 0.05  # share of cases without a usable gradient from which the suite's result is no evidence
MISLED_SHARE = 0.5  # share of cases whose gradient leads nowhere, from which likewise
MISLED_OF_CLASS, FEW_OF_CLASS = 0.75, 8  # the same within one class of so many cases or more
BLACK_BOX_SHARE, BLACK_BOX_WINS = 0.05, 3  # share and number of gradient-proof cases that random search may win
_REPEATED = 1e-4  # largest relative difference between two equal forwards that rounding explains
_SAME_SLOPE = 0.1  # largest difference between two gradients of one input, of its largest entry, that rounding explains
_PROBES = (0.01, 0.25)  # steps along the gradient, in eps


@dataclass
class Signs:
    """What was seen while a suite ran.

    Attributes:
        looked_at: rightly answered cases.
        blind: those whose clean gradient is zero or not finite under every loss of the suite, surrogate slopes or not.
        flat: those that surrogate slopes give a gradient.
        misled: those whose loss rises along no step up the gradient.
        of_class: by class index, how many are misled and how many were looked at; empty where cases have findings.
        tally: of gradients that were not finite.
        refuted: successes that a fresh forward did not confirm.
        repeatable: whether two equal forwards gave equal logits.
        slopes_repeat: whether two equal backward passes gave equal gradients.
        probabilities: whether the outputs look like probabilities.
        trained: whether the model came with layers in training mode.
        moved: whether the model's buffers moved under attack.
        black_box: cases that stood against all gradients and faced random search, and how many of them it won.
    """

    looked_at: int = 0
    blind: int = 0
    flat: int = 0
    misled: int = 0
    of_class: dict[str, tuple[int, int]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    refuted: int = 0
    repeatable: bool = True
    slopes_repeat: bool = True
    probabilities: bool = False
    trained: bool = False
    moved: bool = False
    black_box: tuple[int, int] = (0, 0)

    def told(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_told(cls, said: Mapping[str, Any]) -> Signs:
        """From what `told` gave."""
        given = {**said, "tally": Tally(**said["tally"]), "black_box": tuple(said["black_box"])}
        given["of_class"] = {name: (misled, cases) for name, (misled, cases) in said["of_class"].items()}
        return cls(**given)

    @classmethod
    def together(cls, each: Sequence[Signs]) -> Signs:
        """Of all cases, where each saw some of them on the same model."""
        counts = {
            name: sum(getattr(s, name) for s in each) for name in ("looked_at", "blind", "flat", "misled", "refuted")
        }
        held = {name: all(getattr(s, name) for s in each) for name in ("repeatable", "slopes_repeat", "probabilities")}
        seen = {name: any(getattr(s, name) for s in each) for name in ("trained", "moved")}
        classes = sorted({name for s in each for name in s.of_class})
        none = 0, 0
        of_class = {
            name: (sum(s.of_class.get(name, none)[0] for s in each), sum(s.of_class.get(name, none)[1] for s in each))
            for name in classes
        }
        return cls(
            **counts,
            of_class=of_class,
            **held,
            **seen,
            tally=Tally(sum(s.tally.asked for s in each), sum(s.tally.broken for s in each)),
            black_box=(sum(s.black_box[0] for s in each), sum(s.black_box[1] for s in each)),
        )


def repeats(first: Tensor, second: Tensor) -> bool:
    """Whether two (N, columns) logits of the same inputs differ by no more than rounding."""
    return bool(((first - second).abs() <= _REPEATED * first.abs().amax().clamp_min(1.0)).all())


def slopes_repeat(victim: Victim, inputs: Tensor) -> bool:
    """Whether the gradients of the same inputs are the same again, but for the rounding of sums in another order.

    Args:
        victim: the model and the labels of all cases.
        inputs: (N, C, *spatial) clean inputs.
    """
    rows = torch.arange(len(inputs), device=inputs.device)
    first, second = (victim.slope(inputs, rows)[1].flatten(1) for _ in range(2))
    apart = (first - second).abs().amax(1) > _SAME_SLOPE * torch.maximum(first.abs().amax(1), second.abs().amax(1))
    return int(apart.sum()) <= BLIND_SHARE * len(inputs)


def look_like_probabilities(logits: Tensor) -> bool:
    """Whether (N, K) outputs lie in [0, 1] and add up to 1, every case's, as a softmax does; K = 1 can't tell."""
    inside = (logits >= 0) & (logits <= 1)
    return logits.shape[1] > 1 and bool(inside.all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all())


def climbs(victim: Victim, inputs: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    """Looks at clean gradients: are they there, and do they lead uphill?

    Args:
        victim: the model and the labels of all cases.
        inputs: (N, C, *spatial) clean inputs.
        threat: norm, eps in input units, bounds.

    Returns:
        (N,) bool, gradient all zero or not finite; (N,) bool, some step along it raises the loss.
    """
    rows = torch.arange(len(inputs), device=inputs.device)
    loss, gradient, _ = victim.slope(inputs, rows)
    rises = torch.zeros_like(loss, dtype=torch.bool)
    for share in _PROBES:
        there = project(inputs + share * threat.eps * steepest(gradient, threat.norm), inputs, threat)
        rises |= victim.value(there, rows)[0] > loss
    return (gradient == 0).flatten(1).all(1), rises


def findings(signs: Signs) -> tuple[Finding, ...]:
    """What a reader of the result must know."""
    return tuple(Finding(f"attack.{code}", severity, message) for code, severity, message in _said(signs))


def _said(signs: Signs) -> Iterator[tuple[str, str, str]]:
    if signs.blind > BLIND_SHARE * signs.looked_at:
        yield (
            "vanishing_gradient",
            "critical",
            f"The input gradient is exactly zero or not finite for {signs.blind} of {signs.looked_at} rightly answered "
            "cases, under every loss of the suite. Attacks that follow gradients are blind there: that they failed is "
            "no evidence of robustness.",
        )
    if signs.flat > BLIND_SHARE * signs.looked_at:
        yield (
            "surrogate_gradient",
            "warning",
            f"The input gradient is exactly zero for {signs.flat} of {signs.looked_at} rightly answered cases, because "
            "all activations of a layer are saturated. They were attacked through a backward pass in which saturated "
            "activations have a slope (BPDA, Athalye et al. 2018).",
        )
    yield from _misled(signs)
    cases, wins = signs.black_box
    if wins >= BLACK_BOX_WINS and wins > BLACK_BOX_SHARE * cases:
        yield (
            "black_box_stronger",
            "critical",
            f"Random search without gradients won {wins} of the {cases} cases on which every attack with gradients had "
            "failed: the gradients are masked, and the cases that still stand may fall to a better attack.",
        )
    if not signs.repeatable:
        yield (
            "random_answers",
            "critical",
            "The same input gives different logits each time. Single answers of such a model are no evidence of "
            "robustness; attack its expected answer, or remove the randomness.",
        )
    if signs.repeatable and not signs.slopes_repeat:
        yield (
            "random_gradient",
            "critical",
            "The same input gives the same logits and another gradient each time. Attacks that follow such gradients "
            "are led astray: that they failed is no evidence of robustness.",
        )
    if signs.moved:
        yield (
            "moving_buffers",
            "critical",
            "The model's forward pass changes its buffers in evaluation mode, so its answers depend on what it was "
            "shown before. They were put back after the attacks.",
        )
    if signs.probabilities:
        yield (
            "probabilities",
            "critical",
            "The model returns probabilities where logits are expected: they saturate, which hides gradients, and a "
            "second softmax spoils every probability that is reported. Return the values before the softmax.",
        )
    if signs.tally.broken:
        yield (
            "nonfinite_gradient",
            "warning",
            f"{signs.tally.broken} of {signs.tally.asked} input gradients held NaN or infinity, which was taken as "
            "zero; the attacks were weaker for it.",
        )
    if signs.refuted:
        yield (
            "unconfirmed_success",
            "warning",
            f"{signs.refuted} successes were not confirmed by a fresh forward of the same input and were not counted. "
            "One or two can be rounding at a tie; more mean that the model answers at random.",
        )
    if signs.trained:
        yield (
            "training_mode",
            "info",
            "The model came with layers in training mode; it was attacked in eval mode and given back as it came.",
        )


def _misled(signs: Signs) -> Iterator[tuple[str, str, str]]:
    if signs.misled > MISLED_SHARE * signs.looked_at:
        yield (
            "misleading_gradient",
            "critical",
            f"For {signs.misled} of {signs.looked_at} rightly answered cases no step along the input gradient raises "
            "the loss. Attacks that follow such gradients are misled: that they failed is no evidence of robustness.",
        )
    elif any(n >= FEW_OF_CLASS and misled > MISLED_OF_CLASS * n for misled, n in signs.of_class.values()):
        misled, cases = max(signs.of_class.values(), key=lambda one: (one[1] >= FEW_OF_CLASS) * one[0] / max(1, one[1]))
        yield (
            "misleading_gradient",
            "critical",
            f"In one class no step along the input gradient raises the loss of {misled} of {cases} rightly answered "
            "cases, as where the gradient is the same whatever the case. Attacks that follow it are misled there: that "
            "they failed is no evidence of robustness.",
        )
