"""The gate: a verdict on one run, from its records alone.

Verdicts, in order of gravity: PASS, INCONCLUSIVE, FAIL, INVALID. The run's verdict is the gravest of all endpoints:
all must pass, so no alpha is split between them, unless the protocol makes the scores alternatives (`endpoints`). Every
PASS comes from a confidence limit at 1 - 2 alpha / looks, on the released composite, against the original (and the last
authorised release, where there is one) on the same cases, with the patient as the unit.

    Endpoint                   PASS                                 FAIL                    otherwise
    identity                   state and clean logits equal the     anything differs        INCONCLUSIVE
                               original's file, on every test case
    accuracy, sensitivity,     lower limit of the paired change     observed change is      INCONCLUSIVE
    specificity, recall:CLASS, is above -margin                     -margin or worse
    balanced_accuracy, auroc
    brier                      upper limit of the paired increase   observed increase is    INCONCLUSIVE
                               is below the margin                  the margin or more
    quadratic_kappa            as accuracy, on kappa                as accuracy             INCONCLUSIVE
    grade_error                as brier, in grades                  as brier                INCONCLUSIVE
    SIDE_at_SIDE_x             as accuracy, each model at its own   as accuracy             INCONCLUSIVE
                               threshold from validation
    worst_group:METRIC         the least lower limit of all groups  harm is shown in one    INCONCLUSIVE
                               is above -margin, or reaches floor
    plan:METRIC                as accuracy, against the authorised  as accuracy             INCONCLUSIVE
                               release at its plan's bar
    METRIC_floor (if stated),  lower limit reaches the floor        estimate is below it    INCONCLUSIVE
    robust_floor, and of each
    class robust_sensitivity
    robust_gain                lower limit of the paired change     gain not above it       INCONCLUSIVE
                               under attack is above the least gain
    robust_gain_where_right    the same among the original's right  it is negative          INCONCLUSIVE
                               answers, above 0
    robust_sensitivity_change  as recall, under attack              as recall               INCONCLUSIVE
    referral (guarded only)    upper limit is within the budget     estimate exceeds it     INCONCLUSIVE
    of all, classes, attacked
    agreement (artefacts only) answered and referred as by the      never                   INCONCLUSIVE
                               composite, on every test case; it is reported and decides nothing

Where the release was tested independently too (`independent/`), each endpoint is that of the evaluation in which it
came out worse, and the verdict is the gravest of all.

A subgroup FAILs where harm is shown by exact limits, and so does the run; a subgroup that is INCONCLUSIVE is listed
among the reasons and leaves the verdict as it is. Nothing passes where the original is not shown to be better than
chance and the protocol states no floor, or where no attack won on anybody.

A critical finding whose code starts with `attack.` or `hardening.` makes the verdict FAIL at least; any other critical
finding makes it INCONCLUSIVE at least. INVALID, without endpoints, are records that don't belong together, don't
reconcile with the per-case table, miss a case or a class, hold a number that is no probability, were answered under
another decision rule, or share a patient, an image or what looks like its copy between splits. INVALID too is a run
whose log locked another protocol or cohort, recorded other records, or holds more looks at the test split than the
protocol's budget, and a run under another protocol than whoever decides requires. A record that is missing or
unreadable is no verdict but a `RunError`.
"""

from medharden.gating.answers import COLUMNS, AnswerColumns, PairedAnswers, read_answers
from medharden.gating.artefact import gate_artefact
from medharden.gating.authorised import Release
from medharden.gating.comparing import Asked, compare_answers
from medharden.gating.decision import decide
from medharden.gating.digests import RunDigests
from medharden.gating.run import gate
from medharden.gating.standing import Standing, check_decision

__all__ = [
    "COLUMNS",
    "AnswerColumns",
    "Asked",
    "PairedAnswers",
    "Release",
    "RunDigests",
    "Standing",
    "check_decision",
    "compare_answers",
    "decide",
    "gate",
    "gate_artefact",
    "read_answers",
]
