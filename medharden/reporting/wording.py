"""The report's fixed sentences: what a verdict means, how a fusion answers, what was not tested."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medharden.protocol import CORRUPTIONS, Intensity, Protocol, Step, ThreatModel
from medharden.record import Verdict
from medharden.reporting.numbers import eps_text

__all__ = [
    "ATTACKS",
    "BRANCH",
    "FINDING_LABELS",
    "FUSION",
    "KINDS",
    "LABELS",
    "LOSSES",
    "MEANING",
    "UNJUSTIFIED",
    "ArticleRow",
    "article_15",
    "budget_words",
    "corruption_words",
    "endpoint_label",
    "input_words",
    "threat_rows",
    "threat_words",
    "untested",
]

MEANING = {
    Verdict.PASS: "Every endpoint was met: each confidence limit lies on the right side of the limit that the protocol "
    "fixed before the test split was opened.",
    Verdict.FAIL: "At least one endpoint was not met, or a critical finding stands against the evidence. The hardened "
    "model must not replace the original.",
    Verdict.INCONCLUSIVE: "The data neither show nor exclude that every endpoint is met. This is not evidence that the "
    "models are equivalent.",
    Verdict.INVALID: "The evidence can't be used: a precondition of the protocol was broken, so no endpoint supports "
    "any claim until the cause is removed and the gate is run again.",
}

UNJUSTIFIED = (
    "This protocol gives no clinical reason for at least one of its limits. The verdict is a "
    "technical one and supports no clinical claim."
)

KINDS = {
    "noninferiority": "non-inferiority",
    "identity": "equality",
    "robust_floor": "floor",
    "robust_gain": "superiority",
    "robust_change": "non-inferiority under attack",
    "clean_floor": "floor",
    "referral": "budget",
    "subgroup": "subgroup, descriptive",
    "subgroup_floor": "subgroup, descriptive",
    "subgroup_referral": "subgroup, descriptive",
    "brier": "non-inferiority, lower is better",
    "shift": "non-inferiority under a corruption",
    "grade_error": "non-inferiority in grades, lower is better",
    "kappa": "non-inferiority",
}

_PREFIXES = {
    "worst_group:": "{}, worst group",
    "worst_group_floor:": "{}, worst group, floor",
    "referred_wrong:": "{}, referred cases as wrong",
    "referred_right:": "{}, referred cases as right",
    "plan:": "{}, bar of the change control plan",
    "against_release:": "{}, had the release alone lost them",
    "against_original:": "{}, had the original alone lost them",
    "against_both:": "{}, had both lost them",
}
_AT_POINT = re.compile(r"(?P<side>sensitivity|specificity)_at_(?P<fixed>sensitivity|specificity)_(?P<at>[\d.e-]+)")

LABELS = {
    "identity": "Clean path",
    "auroc": "AUROC",
    "finding_accuracy": "Accuracy, mean over findings",
    "brier": "Brier score",
    "quadratic_kappa": "Quadratic kappa",
    "grade_error": "Mean absolute error in grades",
    "within_one_grade": "Right or one grade off",
    "robust_floor": "Robust accuracy, released",
    "robust": "Robust accuracy",
    "robust_gain": "Robust gain over original",
    "robust_gain_where_right": "Robust gain where the original is right",
    "referral": "Referral of clean cases",
    "referral_attacked": "Referral under attack",
}

FINDING_LABELS = {
    "accuracy": "Accuracy, every finding right",
    "auroc": "AUROC, mean over findings",
    "brier": "Brier score, mean over findings",
}

FUSION = {
    "clean": "The released model answers with the clean path alone: the original's logits, bit for bit. The robust "
    "branch is stored beside it and does not answer.",
    "robust": "The released model answers with the robust branch alone; the clean path is kept beside it, unchanged.",
    "mixed": "The released model gives one answer: the class probabilities of the clean path and of the robust branch, "
    "each at its own temperature, are averaged with fixed weights. The weights were set on validation data.",
    "guarded": "The released model gives the clean path's answer, bit for bit, and raises a referral flag where the "
    "robust branch disagrees: the reader is told to look. An attack wins only if the answer is wrong and no flag "
    "is raised.",
}

BRANCH = {
    "full": "a copy of the original in which every weight was trained",
    "norm": "normalisation layers and classifier trained, over the original's frozen weights",
}


ATTACKS = {
    "pgd": "PGD (Madry et al. 2018)",
    "apgd": "Auto-PGD (Croce & Hein 2020)",
    "apgd-t": "Auto-PGD towards each other class in turn (Croce & Hein 2020)",
    "fab": "FAB, minimum norm (Croce & Hein, ICML 2020)",
    "square": "Square, black box by queries (Andriushchenko et al. 2020)",
}

LOSSES = {
    "ce": "cross-entropy",
    "margin": "margin of logits",
    "dlr": "difference of logits ratio",
}


@dataclass(frozen=True)
class ArticleRow:
    """One row of Art. 15(5) of the EU AI Act: the attack named there, whether it was tested, and how."""

    name: str
    tested: bool
    note: str


def budget_words(threat: ThreatModel) -> str:
    """The budget in one phrase, in the protocol's unit."""
    unit = eps_text(threat.eps, threat.unit)
    if threat.norm == "linf":
        return f"each value moved by at most {unit}"
    return f"a perturbation of Euclidean length at most {unit}"


def threat_words(threat: ThreatModel, intensity: Intensity) -> str:
    """The budget in one phrase, in the protocol's unit and in input units."""
    eps = threat.in_input_units(intensity).eps
    return budget_words(threat) + ("" if threat.unit == "input" else f" ({eps:.3g} of the input range)")


def threat_rows(protocol: Protocol) -> tuple[tuple[str, str], ...]:
    """The threat model in the terms of NIST AI 100-2 E2025 and MITRE ATLAS: term and content."""
    norm = "L-infinity" if protocol.threat.norm == "linf" else "L2"
    wrong = "finding" if protocol.task.multilabel else "class"
    return (
        ("Attack class", "Evasion (NISTAML.022; MITRE ATLAS AML.T0015, with adversarial data crafted by AML.T0043)"),
        ("Attacker's goal", f"Integrity violation (NISTAML.02), untargeted: any wrong {wrong} counts"),
        (
            "Attacker's knowledge",
            "White box: architecture, weights, fusion and decision threshold of the attacked model",
        ),
        (
            "Attacker's capability",
            f"Changes the digital model input: {threat_words(protocol.threat, protocol.input.intensity)} ({norm})",
        ),
        ("Lifecycle stage", "Deployment (inference); training data, weights and code are trusted"),
    )


def input_words(protocol: Protocol) -> str:
    """How stored values become model input, in one phrase."""
    spec, intensity = protocol.input, protocol.input.intensity
    if intensity.mode == "window":
        scale = f"the window [{intensity.low:g}, {intensity.high:g}] mapped to [0, 1]"
    elif intensity.mode == "percentile":
        scale = f"each case's percentiles {intensity.low:g} to {intensity.high:g} mapped to [0, 1]"
    elif intensity.mode in ("minmax", "max"):
        low = "smallest value" if intensity.mode == "minmax" else "0"
        scale = f"each case's {low} to its largest value mapped to [0, 1]"
    elif intensity.mode == "ready":
        return "as the dataset gives it, in [0, 1]: made by the user's own code"
    else:
        scale = "the file's own first window, or its data type's range, mapped to [0, 1]"
    if spec.spatial:
        steps = ", ".join(_step_words(step) for step in spec.spatial)
        order = (scale, f"then {steps}") if intensity.when == "before" else (steps, f"then {scale}")
        return ", ".join(order)
    if spec.size is None:
        return f"native size, {scale}"
    fit = "stretched" if spec.fit == "stretch" else "padded to shape and resampled"
    return f"{fit} to {' × '.join(map(str, spec.size))}, {scale}"


def _step_words(step: Step) -> str:
    facts = [" × ".join(f"{v:g}" for v in values) for values in (step.size, step.mm) if values is not None]
    facts += [str(fact) for fact in (step.mode, step.axes) if fact is not None]
    facts += ["corners aligned"] if step.align_corners else []
    facts += ["in proportion, by the shorter side"] if step.fit == "shortest" else []
    facts += ["placed as torchvision does"] if step.place == "torchvision" else []
    return " ".join([step.step, *facts]) + (" mm" if step.mm is not None else "")


def article_15(protocol: Protocol, attacked: int) -> tuple[ArticleRow, ...]:
    """The five rows of Art. 15(5): tested or not, and what that means here."""
    budget = threat_words(protocol.threat, protocol.input.intensity)
    return (
        ArticleRow(
            "Data poisoning", False, "Training data are taken as given; no search for manipulated cases or labels."
        ),
        ArticleRow(
            "Model poisoning",
            False,
            "The original is taken as given; its file is pinned by digest, and a back door in it would be kept.",
        ),
        ArticleRow(
            "Adversarial examples (evasion)",
            True,
            f"White-box, {budget}, on {attacked:,} test cases, against the model as released.",
        ),
        ArticleRow(
            "Confidentiality attacks",
            False,
            "No test of membership inference, which hardening can make easier, of model inversion or of extraction.",
        ),
        ArticleRow("Model flaws", False, "Only what the findings list; no search for shortcuts or other design flaws."),
    )


def untested(protocol: Protocol) -> tuple[str, ...]:
    """What no number in the report speaks about."""
    other = "L2, L1 and L0 norms" if protocol.threat.norm == "linf" else "L-infinity, L1 and L0 norms"
    queries = any(attack.attack == "square" for attack in protocol.suite.attacks)
    curve = ", but for the search over budgets, which is weaker than the suite" if protocol.suite.curve_steps else ""
    groups = ", ".join(protocol.subgroups.columns)
    within = f"within it subgroups by other than {groups}" if groups else "subgroups within it"
    eps = eps_text(protocol.threat.eps, protocol.threat.unit)
    return (
        f"Other budgets than {eps}{curve}; {other}, patches and rotations.",
        f"Black-box attacks: {'' if queries else 'query-based, and '}transferred from other models.",
        _ordinary(protocol),
        "Poisoned data, poisoned or back-doored weights, model extraction, membership inference.",
        f"Populations, sites, scanners and prevalences other than those of the test split, and {within}.",
        "The reference standard: labels are taken as supplied.",
    )


def _ordinary(protocol: Protocol) -> str:
    attacks = "Physical and acquisition-chain attacks (scanner, positioning, PACS)"
    if not protocol.shift.corruptions:
        return f"{attacks}, and natural noise or artefacts."
    simulated = ", ".join(map(corruption_words, protocol.shift.corruptions))
    return f"{attacks}; natural artefacts other than simulated {simulated}."


_SAID = {"jpeg": "JPEG compression", "resolution": "lower resolution"} | {
    f"{what}-{way}": f"{how} {what}"
    for what in ("brightness", "contrast", "gamma")
    for way, how in (("up", "higher"), ("down", "lower"))
}


def corruption_words(name: str) -> str:
    """A corruption as a reader says it: `brightness-up` is "higher brightness"."""
    return _SAID.get(name, name.replace("-", " "))


_CORRUPTED = {f"shift:{name}:": f"{{}} under {corruption_words(name)}" for name in CORRUPTIONS}


def endpoint_label(name: str, classes: tuple[str, ...], positive: str | None) -> str:
    """An endpoint's name as a reader says it: `recall:effusion` is "Recall of effusion"."""
    if name in LABELS:
        return LABELS[name]
    for start, said in (*_PREFIXES.items(), *_CORRUPTED.items()):
        if name.startswith(start):
            return said.format(endpoint_label(name.removeprefix(start), classes, positive))
    if found := _AT_POINT.fullmatch(name):
        label = endpoint_label(found["side"], classes, positive)
        return f"{label} where {found['fixed']} was {found['at']} on validation"
    if name.startswith("original_"):
        return f"{endpoint_label(name.removeprefix('original_'), classes, positive)}, original"
    metric, _, subject = name.partition(":")
    if metric == "referral":
        return f"Referral of clean cases, {subject}"
    for end, said in (("_change", "{}, against the original"), ("_floor", "{}, floor")):
        if metric.endswith(end):
            whole = metric.removesuffix(end) + (f":{subject}" if subject else "")
            return said.format(endpoint_label(whole, classes, positive))
    if metric.startswith("robust_"):
        inner = endpoint_label(name.removeprefix("robust_"), classes, positive)
        return f"Robust {inner[:1].lower()}{inner[1:]}"
    if metric in ("recall", "sensitivity", "specificity", "auroc") and subject:
        return f"{LABELS.get(metric, metric.capitalize())} of {subject}"
    if metric in ("sensitivity", "specificity") and positive in classes and len(classes) == 2:
        negative = classes[1 - classes.index(positive)]
        return f"{metric.capitalize()} ({positive if metric == 'sensitivity' else negative})"
    return metric.replace("_", " ").capitalize()
