"""`strength()`: what a protocol could show, and what it leaves open, in words, before any case is answered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from medharden.errors import ProtocolError
from medharden.protocol import Margin, Protocol
from medharden.stats import clopper_pearson_interval, normal_quantile

__all__ = ["Strength", "fewest_cases", "strength"]

_GREY_LEVEL = 1.0 / 255.0
_COUNTED = ("accuracy", "recall", "finding_accuracy")
_WIDE = 0.1


@dataclass(frozen=True)
class Strength:
    """A protocol's claims, judged; each entry is one sentence.

    Attributes:
        shows: what a PASS under it would say.
        leaves_open: what it would not say, and what can't be shown on few cases.
    """

    shows: tuple[str, ...]
    leaves_open: tuple[str, ...]


def strength(protocol: Protocol) -> Strength:
    """Judges what a PASS under a protocol would be worth."""
    shows = (_error(protocol), *map(_margin, protocol.endpoints.noninferiority), *_robustness(protocol))
    return Strength(shows, tuple(_open(protocol)))


def fewest_cases(margin: float, alpha: float) -> int:
    """The fewest cases on which Tango's limit shows a margin, where no case at all is lost or gained.

    Args:
        margin: in (0, 1).
        alpha: one-sided error, in (0, 0.5).
    """
    squared = normal_quantile(1.0 - alpha) ** 2
    return math.floor(squared * (1.0 - margin) / margin) + 1


def _error(protocol: Protocol) -> str:
    wanted = protocol.endpoints
    over = "1 look" if wanted.looks == 1 else f"{wanted.looks} looks, each decided at {wanted.alpha_per_look:.3g}"
    return f"each endpoint passes wrongly with a chance of {wanted.alpha:g} at most, over {over}"


def _margin(wanted: Margin) -> str:
    rises = wanted.metric == "brier"
    what = {"recall": "the recall of each class or finding that is asked of"}.get(wanted.metric, f"the {wanted.metric}")
    change = f"rises by less than {wanted.margin:g}" if rises else f"falls by less than {100 * wanted.margin:g} points"
    return f"{what} {change}"


def _robustness(protocol: Protocol) -> Iterator[str]:
    floor = protocol.endpoints.robustness.floor
    if floor > 0.0:
        yield f"robust accuracy is {floor:g} at least, and above the original's"
    else:
        yield "robust accuracy is above the original's"
    yield f"that is against {_threat(protocol)}, and {', '.join(a.name for a in protocol.suite.attacks)}"


def _threat(protocol: Protocol) -> str:
    threat = protocol.threat
    return f"{threat.norm} perturbations of {threat.eps:g} {threat.unit}"


def _open(protocol: Protocol) -> Iterator[str]:
    wanted, suite = protocol.endpoints, protocol.suite
    yield from _of_margins(protocol)
    if wanted.robustness.floor == 0.0:
        yield "no floor is asked of robust accuracy: a few cases of a thousand that stand may do"
    elif not wanted.robustness.justification:
        yield "the floor of robust accuracy has no clinical reason"
    if protocol.fusion.mode == "clean":
        yield "fusion clean answers as the original does: no gain under attack can be shown"
    if suite.weakness:
        yield f"the suite is weak, and a stronger one may find that fewer cases stand: {suite.weakness}"
    if suite.cases is not None:
        lower, upper = clopper_pearson_interval(suite.cases // 2, suite.cases, level=1.0 - 2.0 * wanted.alpha_per_look)
        yield (
            f"{suite.cases} cases are attacked: limits of a robust accuracy of a half are {100 * (upper - lower) / 2:.0f} "
            "points to either side"
        )
    yield from _small_budget(protocol)
    if wanted.looks > 1:
        yield f"{wanted.looks} looks are planned: the fewer, the more each can show"
    if protocol.splits.each_case:
        yield "that no two cases without a patient are of one is the protocol's word: if they are, errors are larger"
    if protocol.splits.near_duplicate_bits is None:
        yield "nobody looks for images that look like copies; only identical ones count once"
    if suite.sanity_cases == 0:
        yield "no sanity curves are measured: attacks that fail for want of gradients are less likely to be noticed"
    if not protocol.subgroups.columns:
        yield "no subgroup is looked at: harm to one may hide in the whole"
    yield "robustness to other threats than this one, to shifts of scanner or population, or of the original itself"


def _of_margins(protocol: Protocol) -> Iterator[str]:
    alpha = protocol.endpoints.alpha_per_look
    for wanted in protocol.endpoints.noninferiority:
        of = "of a class or finding " if wanted.metric == "recall" else ""
        if wanted.metric in _COUNTED:
            least = fewest_cases(wanted.margin, alpha)
            yield f"{wanted.metric}: a margin of {wanted.margin:g} can't be shown on fewer than {least} cases {of}".strip()
        if wanted.margin > _WIDE:
            yield f"{wanted.metric}: a loss just below {wanted.margin:g} would pass"
    bare = [m.metric for m in protocol.endpoints.noninferiority if not m.justification]
    if bare:
        yield f"margins without a clinical reason are conventions: {', '.join(bare)}"


def _small_budget(protocol: Protocol) -> Iterator[str]:
    try:
        eps = protocol.input_threat.eps
    except ProtocolError:  # of stored values, which evaluation refuses
        return
    if protocol.threat.norm == "linf" and eps < _GREY_LEVEL:
        yield f"the attacker may move a value by {eps:.2g} of its range, less than one of 256 grey levels"
