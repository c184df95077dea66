"""Valid runs, a row a rule and a border of the gate: requirement, name, records, change, verdict, reason."""

from __future__ import annotations

from gating_changes import Change, alike, column, critical, evaluated, grouped, hardened, identity, logged, same, scored
from gating_factory import protocol, records

from medharden.record import Finding, Verdict

__all__ = ["VERDICTS"]

PASS, INCONCLUSIVE, FAIL = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL

GUARDED = protocol(
    mode="guarded",
    classes=("NORMAL", "PNEUMONIA"),
    fusion={
        "referral_by_class": {"NORMAL": 0.2, "PNEUMONIA": 0.2},
        "referral_attacked": 0.5,
        "referred": {"counts_as": "right", "reason": "A second reader answers them."},
    },
)
BY_SEX = protocol(columns=("sex",), floor=1e-9)  # the first cases have fallen, the last stand
AUROC = protocol(more=(("auroc", 0.02),))
BRIER = protocol(more=(("brier", 0.02),))
BALANCED = protocol(more=(("balanced_accuracy", 0.03),))
WIDE_BY_SEX = protocol(columns=("sex",), margins=(0.1, 0.2), floor=1e-9)
REVIEWED = protocol(splits={"reviewed": ({"cases": ("train0", "case00003"), "justification": "Twins."},)})
BOTH = protocol(more=(("auroc", 0.02), ("brier", 0.02)))
ANY = protocol(more=(("auroc", 0.02), ("brier", 0.02)), multiplicity="any-holm")
WIDER_ANY = protocol(more=(("auroc", 0.027), ("brier", 0.02)), multiplicity="any-holm")

LOW_FLOOR = protocol(floor=0.1)
UNNAMED = protocol(positive=None, more=(("auroc", 0.02),))
LOW = records(rules=protocol(threshold=0.3))


def _at(answer: str, probability: float) -> Change:
    """The last case of that answer has this probability of the positive class."""
    return column("composite", "probabilities", 399 if answer == "PNEUMONIA" else 398, (1 - probability, probability))


VERDICTS = [
    # G2, G4, and zero discordance: equal answers are not enough, the cases must be many
    ("G2 G4", "all endpoints pass", records(), same, PASS, ""),
    ("G2 G4", "equal accuracy on few cases", records(20, wrong=0), same, INCONCLUSIVE, "accuracy: lower 95 % limit"),
    (
        "G2 G4",
        "188 equal answers",
        records(188, rules=protocol(margins=(0.02, 0.2))),
        same,
        INCONCLUSIVE,
        "−2.002 pp is below",
    ),
    ("G2 G4", "189 equal answers", records(189, rules=protocol(margins=(0.02, 0.2))), same, PASS, ""),
    ("G2 G4", "100 equal answers, guarded", records(100, rules=GUARDED), same, INCONCLUSIVE, "lower 95 % limit"),
    ("G2 G4", "few cases of each class", records(190), same, PASS, ""),
    (
        "G2 G4",
        "too few cases of each class",
        records(140, rules=protocol(margins=(0.1, 0.05))),
        same,
        INCONCLUSIVE,
        "sensitivity",
    ),
    ("G2 G4", "few gained and lost", records(gained=3, lost=3), same, PASS, ""),
    ("G2 G4", "more gained and lost", records(gained=9, lost=9), same, INCONCLUSIVE, "9 gained, 9 lost"),
    (
        "G2 G4",
        "a loss as large as the margin",
        records(lost=8),
        same,
        FAIL,
        "accuracy: the observed change −2.0 pp uses up",
    ),
    ("G2 G4", "a loss just below the margin", records(lost=7), same, INCONCLUSIVE, "not shown: needs about"),
    ("G2 G4", "a loss too near the margin", records(1000, lost=19), same, INCONCLUSIVE, "too near the margin"),
    ("G2 G4", "a gain", records(gained=8), same, PASS, ""),
    ("G5", "doubled rows add nothing", records(400, cases_a_patient=4), same, INCONCLUSIVE, "400 of 100 patients"),
    ("G5", "two cases a patient, no discordance", records(400, cases_a_patient=2), same, PASS, ""),
    # G4: any may pass, by Holm; the co-primary endpoints must pass whatever the alternatives do
    ("G4", "all alternatives shown", records(1000, rules=ANY), same, PASS, ""),
    (
        "G4",
        "one alternative shown, the other open",
        records(600, rules=ANY),
        scored("composite", -0.29, of=slice(580, 600)),
        PASS,
        "",
    ),
    (
        "G4",
        "the same where all must pass",
        records(600, rules=BOTH),
        scored("composite", -0.29, of=slice(580, 600)),
        INCONCLUSIVE,
        "brier",
    ),
    (
        "G4",
        "no alternative shown",
        records(300, rules=ANY),
        same,
        INCONCLUSIVE,
        "none is shown under Holm's correction",
    ),
    (
        "G4",
        "shown at alpha, not at half of it",
        records(300, rules=WIDER_ANY),
        same,
        INCONCLUSIVE,
        "lower 97.5 % limit",
    ),
    (
        "G4",
        "an alternative shown to be worse",
        records(rules=ANY),
        scored("composite", -0.25),
        FAIL,
        "brier: a loss beyond the margin is shown",
    ),
    ("G4", "alternatives shown, recall lost", records(1000, rules=ANY, lost=20), same, FAIL, "accuracy: the observed"),
    (
        "G4",
        "an alternative shown to be lower",
        records(rules=ANY, lost=30),
        same,
        FAIL,
        "auroc: a loss beyond the margin is shown: upper 97.5 % limit −4.9 pp is below −2.0 pp",
    ),
    # G8: identity
    (
        "G8",
        "identity: not compared with a file",
        records(),
        identity(against="none"),
        INCONCLUSIVE,
        "identity: the clean path",
    ),
    (
        "G8",
        "identity: a buffer changed",
        records(),
        identity(state_equal=False),
        FAIL,
        "identity: the clean path is not",
    ),
    (
        "G8",
        "identity: a logit changed",
        records(),
        identity(logits_equal=False, max_abs_difference=1.5e-8),
        FAIL,
        "1.5e-08",
    ),
    ("G8", "identity: a difference that is called equal", records(), identity(max_abs_difference=1e-9), FAIL, "1e-09"),
    ("G8", "identity: some cases left out", records(), identity(cases=399), INCONCLUSIVE, "399 of 400"),
    (
        "G8",
        "identity: moved during hardening",
        records(),
        hardened(clean_state_after="9" * 64),
        FAIL,
        "moved the clean path",
    ),
    ("G8", "identity: logits moved", records(), hardened(clean_logits_identical=False), FAIL, "moved the clean path"),
    (
        "G8",
        "identity: moved, and no file",
        records(),
        lambda r: identity(against="none")(hardened(clean_state_after="9")(r)),
        FAIL,
        "moved",
    ),
    # G11: robust, above the floor and better than the original
    (
        "G11",
        "floor: reached by the limit",
        records(rules=protocol(floor=0.55, robustness={"class_floor": 0.5})),
        same,
        PASS,
        "",
    ),
    (
        "G11",
        "floor: reached by the estimate alone",
        records(rules=protocol(floor=0.6)),
        same,
        INCONCLUSIVE,
        "robust_floor: lower",
    ),
    (
        "G11",
        "floor: missed",
        records(rules=protocol(floor=0.61)),
        same,
        FAIL,
        "robust_floor: robust accuracy 60.0% is below",
    ),
    (
        "G11",
        "floor: of nothing, and no gain",
        records(rules=protocol(floor=0.0), robust=(0, 0)),
        same,
        FAIL,
        "robust_gain",
    ),
    ("G11", "gain: worse than the original", records(robust=(240, 200)), same, FAIL, "not better than the original"),
    ("G11", "gain: none", records(robust=(200, 200)), same, FAIL, "0 gained, 0 lost"),
    (
        "G11",
        "gain: too small to show",
        records(robust=(200, 203)),
        same,
        INCONCLUSIVE,
        "under attack is not shown",
    ),
    ("G11", "gain: 4, none lost", records(1000, robust=(196, 200), rules=LOW_FLOOR), same, INCONCLUSIVE, "4 gained"),
    ("G11", "gain: 6, none lost", records(1000, robust=(194, 200), rules=LOW_FLOOR), same, PASS, ""),
    ("G11", "gain: by sample", records(rules=protocol(sample=100), attacked=100, robust=(10, 60)), same, PASS, ""),
    (
        "G11",
        "gain: by few patients",
        records(rules=protocol(margins=(0.3, 0.4), floor=0.0), cases_a_patient=80, robust=(0, 80)),
        same,
        INCONCLUSIVE,
        "robust_gain",
    ),
    (
        "G11",
        "a constant answer",
        records(),
        evaluated(findings=critical("evaluation.constant_answer")),
        INCONCLUSIVE,
        "critical",
    ),
    (
        "G11",
        "gradient masking",
        records(),
        evaluated(findings=critical("attack.vanishing_gradient")),
        FAIL,
        "attack.vanishing",
    ),
    ("G11", "collapse", records(), hardened(findings=critical("hardening.collapse")), FAIL, "hardening.collapse"),
    (
        "G11",
        "a warning does not count",
        records(),
        evaluated(findings=(Finding("attack.x", "warning", "m"),)),
        PASS,
        "",
    ),
    # G12: images that look alike
    ("G12", "similar, and no copy", records(), alike(17), PASS, ""),
    ("G12", "a copy that was reviewed", records(rules=REVIEWED), alike(3), PASS, ""),
    (
        "G12",
        "a copy where none was looked for",
        records(rules=protocol(splits={"near_duplicate_bits": None})),
        alike(0),
        PASS,
        "",
    ),
    # G13: looks within the budget
    ("G13", "two looks of two", records(rules=protocol(looks=2)), logged(opened=2, looks=2, finished=2), PASS, ""),
    ("G13", "an interrupted look that was gone on with", records(), logged(opened=2), PASS, ""),
    (
        "G13",
        "locked twice alike, as a resumed run",
        records(),
        lambda r: logged(locks=r.history.locks * 2)(r),
        PASS,
        "",
    ),
    # G3: AUROC and balanced accuracy beside the others, never alone
    ("G3", "equal scores of many patients", records(1000, rules=AUROC), same, PASS, ""),
    ("G3", "equal scores of few patients", records(300, rules=AUROC), same, INCONCLUSIVE, "auroc: lower 95 % limit"),
    (
        "G3",
        "a ranking that got worse",
        records(rules=AUROC),
        scored("composite", -0.29, of=slice(100, 400)),
        FAIL,
        "auroc",
    ),
    ("G3", "the same AUROC, a shifted threshold", records(1000, rules=AUROC, lost=20), same, FAIL, "accuracy"),
    (
        "G3",
        "three classes, each against the rest",
        records(1200, classes=("A", "B", "C"), rules=protocol(positive=None, more=(("auroc", 0.02),))),
        same,
        PASS,
        "",
    ),
    (
        "G3",
        "a class of one patient",
        records(4, rules=protocol(more=(("auroc", 0.02),)), cases_a_patient=4, wrong=0),
        same,
        INCONCLUSIVE,
        "auroc: lower 95 % limit −100.0 pp is below",
    ),
    ("G3", "balanced accuracy kept", records(rules=BALANCED), same, PASS, ""),
    (
        "G3",
        "balanced accuracy used up",
        records(rules=BALANCED, lost=12),
        same,
        FAIL,
        "balanced_accuracy: the observed",
    ),
    ("G3", "balanced accuracy open", records(rules=BALANCED, lost=7), same, INCONCLUSIVE, "balanced_accuracy: lower"),
    ("G3", "few of each class", records(100, rules=BALANCED, gained=2, lost=2), same, INCONCLUSIVE, "at this variance"),
    # G15: Brier, where higher is worse
    ("G15", "a better calibration", records(rules=BRIER), scored("composite", 0.05), PASS, ""),
    (
        "G15",
        "a copy with worse calibration",
        records(rules=BRIER),
        scored("composite", -0.25),
        FAIL,
        "brier: the observed",
    ),
    ("G15", "a calibration hardly worse", records(1600, rules=BRIER), scored("composite", -0.01), PASS, ""),
    (
        "G15",
        "a calibration that may be worse",
        records(rules=BRIER),
        scored("composite", -0.29, of=slice(380, 400)),
        INCONCLUSIVE,
        "brier: upper 95 % limit 0.032 is above 0.020 (n = 400); not shown: needs about 426 cases",
    ),
    ("G15", "equal scores, no variance", records(rules=BRIER), same, PASS, ""),
    (
        "G15",
        "equal scores of 100, no variance",
        records(100, rules=BRIER),
        same,
        INCONCLUSIVE,
        "brier: upper 95 % limit",
    ),
    # G14: subgroups; the 20 cases that are wrong anyway come first, then the lost ones
    ("G14", "subgroups without a change", records(rules=BY_SEX), grouped("sex", 200), PASS, ""),
    ("G14", "a subgroup of 3", records(rules=BY_SEX), grouped("sex", 3), PASS, "sex=A (n = 3 of about"),
    (
        "G14",
        "a subgroup that only it harms",
        records(rules=WIDE_BY_SEX, lost=15),
        grouped("sex", 40),
        FAIL,
        "harm is shown",
    ),
    (
        "G14",
        "harm in seven cases",
        records(rules=WIDE_BY_SEX, lost=7, wrong=0),
        grouped("sex", 7),
        FAIL,
        "sex=A: harm is shown: exact upper limit",
    ),
    (
        "G14",
        "harm in 20 cases",
        records(rules=WIDE_BY_SEX, lost=15, wrong=0),
        grouped("sex", 20),
        FAIL,
        "sex=A: harm is shown",
    ),
    ("G14", "one case lost", records(rules=WIDE_BY_SEX, lost=1, wrong=0), grouped("sex", 1), PASS, "sex=A (n = 1 of"),
    ("G14", "a loss that is not shown", records(rules=WIDE_BY_SEX, lost=8), grouped("sex", 60), PASS, "sex=A (n = 60"),
    # guarded: the referral budget
    ("G9", "referral: within the budget", records(rules=GUARDED, referred=10), same, PASS, "count as right"),
    (
        "G9",
        "referral: within by the estimate alone",
        records(rules=GUARDED, referred=20),
        same,
        INCONCLUSIVE,
        "referral: upper",
    ),
    ("G9", "referral: exceeded", records(rules=GUARDED, referred=21), same, FAIL, "referral: the clean referral rate"),
    # several classes
    ("G3", "three classes", records(900, classes=("A", "B", "C"), rules=protocol(positive=None)), same, PASS, ""),
    (
        "G3",
        "three classes, one too rare",
        records(200, classes=("A", "B", "C"), rules=protocol(positive=None, floor=0.0)),
        same,
        INCONCLUSIVE,
        "recall:C",
    ),
    ("G3", "a decision threshold", records(rules=protocol(threshold=0.3)), same, PASS, ""),
    (
        "G3",
        "three classes, none above one half",
        records(900, classes=("A", "B", "C"), rules=protocol(positive=None)),
        column("composite", "probabilities", 399, (0.4, 0.35, 0.25)),
        PASS,
        "",
    ),
    *(
        (
            "G10",
            f"answered {answer} at its threshold within rounding, by {step:g}",
            LOW,
            _at(answer, 0.3 + step),
            PASS,
            "",
        )
        for answer, step in (("PNEUMONIA", -5e-6), ("NORMAL", 5e-6))
    ),
    (
        "G10",
        "two classes of equal probability",
        records(),
        column("composite", "probabilities", 399, (0.5, 0.5)),
        PASS,
        "",
    ),
    (
        "G10",
        "two classes of equal probability but for rounding",
        records(),
        column("composite", "probabilities", 399, (0.5 + 2e-6, 0.5 - 2e-6)),
        PASS,
        "",
    ),
    ("G3", "two classes of which none is positive", records(1000, rules=UNNAMED), same, PASS, ""),
    ("G3", "a rounding error below 0", records(), column("composite", "probabilities", 399, (-1e-4, 1.0001)), PASS, ""),
    ("G3", "sum of 1.00005", records(), column("composite", "probabilities", (399, 0), 0.20005), PASS, ""),
]
