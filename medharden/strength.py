"""`strength()`: what a protocol could show, and what it leaves open, in words, before any case is answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medharden.errors import ProtocolError
from medharden.protocol import Protocol
from medharden.stats import clopper_pearson_interval, fewest_cases

__all__ = ["Strength", "strength"]

_GREY_LEVEL = 1.0 / 255.0
_COUNTED = ("accuracy", "recall", "finding_accuracy")
_WIDE = 0.1
_RISING = ("brier", "grade_error")
_SCORES = (*_RISING, "quadratic_kappa")


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
    return Strength(
        shows=(_error(protocol), *_clean(protocol), *_shifted(protocol), *_attacked(protocol)),
        leaves_open=(*_of_margins(protocol), *_of_robustness(protocol), *_of_suite(protocol), *_of_data(protocol)),
    )


def _error(protocol: Protocol) -> str:
    wanted = protocol.endpoints
    over = "1 look" if wanted.looks == 1 else f"{wanted.looks} looks, each decided at {wanted.alpha_per_look:.3g}"
    return f"each endpoint passes wrongly with a chance of {wanted.alpha:g} at most, over {over}"


def _clean(protocol: Protocol) -> Iterator[str]:
    for wanted in protocol.endpoints.noninferiority:
        for name, bound in wanted.bounds.items():
            if wanted.metric in _RISING:
                yield f"{name} rises by less than {bound.margin:g}"
            elif wanted.metric == "quadratic_kappa":
                yield f"{name} falls by less than {bound.margin:g}"
            else:
                yield f"{name} falls by less than {100 * bound.margin:g} points"
        if wanted.floor is not None:
            yield f"{wanted.metric} itself is {wanted.floor:g} at least, the original's too"


def _shifted(protocol: Protocol) -> Iterator[str]:
    for name, bound in protocol.shift.bounds.items():
        under = ", ".join(protocol.shift.corruptions)
        yield f"{name} falls by less than {100 * bound.margin:g} points under each of {under}"


def _attacked(protocol: Protocol) -> Iterator[str]:
    wanted, threat = protocol.endpoints.robustness, protocol.threat
    if wanted.floor > 0.0:
        yield f"robust accuracy is {100 * wanted.floor:g} % at least"
    floor = wanted.floor if wanted.class_floor is None else wanted.class_floor
    if wanted.classes == "co-primary":
        least = f"{100 * floor:g} % at least, and " if floor > 0.0 else ""
        yield f"of each class the share that stands is {least}below the original's by less than its recall's margin"
    for name, of in wanted.by_class.items():
        yield f"of {name} it is {100 * of.floor:g} % at least"
    more = f"by more than {100 * wanted.gain:g} points " if wanted.gain > 0.0 else ""
    yield f"robust accuracy is {more}above the original's, and above it where the original is right when clean"
    if protocol.fusion.mode == "guarded":
        limit = protocol.fusion.referral_attacked
        budget = 100 * protocol.fusion.referral_budget
        yield f"{budget:g} % of clean cases are referred at most, and {100 * limit:g} % of attacked ones"
    attacks = ", ".join(attack.name for attack in protocol.suite.attacks)
    yield f"all of that under {threat.norm} changes of {threat.eps:g} ({threat.unit}), by {attacks}"


def _of_margins(protocol: Protocol) -> Iterator[str]:
    alpha = protocol.endpoints.alpha_per_look
    for wanted in protocol.endpoints.noninferiority:
        of = " of a class or finding" if wanted.metric == "recall" else ""
        for name, bound in wanted.bounds.items():
            margin = f"{bound.margin:g}" if wanted.metric in _SCORES else f"{100 * bound.margin:g} points"
            if wanted.metric in _COUNTED:
                least = fewest_cases(bound.margin, alpha=alpha)
                yield f"{name}: a margin of {margin} can't be shown on fewer than {least} cases{of}"
            if bound.margin > _WIDE:
                yield f"{name}: a loss just below {margin} would pass"
    if bare := protocol.unjustified:
        yield f"conventions without a clinical reason: {', '.join(bare)}"


def _of_robustness(protocol: Protocol) -> Iterator[str]:
    wanted = protocol.endpoints.robustness
    if wanted.floor == 0.0:
        yield "no floor is asked of robust accuracy: a few cases of a thousand that stand may do"
    if wanted.gain == 0.0:
        yield "no least gain is asked: any gain under attack that is shown will do"
    if wanted.class_floor == 0.0:
        yield "no floor is asked of each class under attack"
    if wanted.classes == "reported":
        yield f"robustness by class is reported and decides nothing: {wanted.reason}"
    if all(m.metric != "brier" for m in protocol.endpoints.noninferiority):
        yield "calibration is held against nothing: probabilities may get worse behind the same answers"
    if protocol.fusion.mode == "clean":
        yield "fusion clean answers as the original does: no gain under attack can be shown"
    yield "nothing of other threats than this one, of other scanners or patients, or of the original's own worth"


def _of_suite(protocol: Protocol) -> Iterator[str]:
    suite = protocol.suite
    if suite.weakness:
        yield f"the suite is weak, and a stronger one may find that fewer cases stand: {suite.weakness}"
    if suite.cases is not None:
        level = 1.0 - 2.0 * protocol.endpoints.alpha_per_look
        lower, upper = clopper_pearson_interval(suite.cases // 2, suite.cases, level=level)
        width = 50 * (upper - lower)
        yield f"with {suite.cases} cases attacked, a robust accuracy of a half is known to {width:.0f} points"
    if suite.sanity_cases == 0:
        yield "no sanity curves are measured: attacks that fail for want of gradients are less likely to be noticed"
    try:
        eps = protocol.input_threat.eps
    except ProtocolError:  # of stored values, which evaluation refuses
        return
    if protocol.threat.norm == "linf" and eps < _GREY_LEVEL:
        yield f"an attacker may move a value by {eps:.2g} of its range, which is less than one of 256 grey levels"


def _of_data(protocol: Protocol) -> Iterator[str]:
    if protocol.splits.each_case:
        yield "that no two cases are of one patient is the protocol's word: if they are, errors are larger"
    if protocol.splits.near_duplicate_bits is None:
        yield "nobody looks for images that look like copies; only identical ones count once"
    if protocol.input.unusable == "exclude":
        limit = 100 * protocol.splits.excluded_limit
        yield f"cases that can't be used are left out, up to {limit:.3g} % of each class; a model may fail on these"
    if not protocol.shift.corruptions:
        yield "clean performance on other images than these, noisier, blurred or darker ones, is not measured"
    elif not protocol.shift.bounds:
        yield "clean performance under corruptions is reported and decides nothing"
    if not protocol.subgroups.columns:
        yield "no subgroup is looked at: harm to one may hide in the whole"
