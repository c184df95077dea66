"""The protocol's schema: every scientific choice of a run, frozen before any test image is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import Field, model_validator

from medharden.errors import ProtocolError
from medharden.protocol.attacking import Suite, ThreatModel
from medharden.protocol.base import Fraction, OpenFraction, Strict
from medharden.protocol.changing import ChangeControl
from medharden.protocol.deciding import FINDING_METRICS, GRADE_METRICS, Endpoints, Subgroups, unknown_keys
from medharden.protocol.fusing import Fusion, Referred
from medharden.protocol.imaging import Input
from medharden.protocol.modelling import ModelSpec
from medharden.protocol.reported import Statements
from medharden.protocol.shifting import Shift
from medharden.protocol.sourcing import Cases, Columns, PatientPattern
from medharden.protocol.tasking import Task

__all__ = [
    "Fusion",
    "Hardening",
    "Patients",
    "Protocol",
    "Referred",
    "Reviewed",
    "Splits",
    "Teacher",
]


class Reviewed(Strict):
    """Two cases that look like copies of one image, and that a person found to be of different patients.

    Attributes:
        cases: their pseudonyms.
        justification: how that was found out.
    """

    cases: tuple[str, str]
    justification: Annotated[str, Field(min_length=1)]


class Patients(Strict):
    """Whose the cases are for which the data name no patient.

    Attributes:
        unit: `named`: patients are to be named, and while a case names none, a verdict is INCONCLUSIVE at best;
            `each_case`: each case that names none is a patient of its own.
        reason: how it is known that no two such cases are of one patient.
    """

    unit: Literal["named", "each_case"] = "named"
    reason: Annotated[str, Field(min_length=1, pattern=r"\S")] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Patients:
        if self.unit == "each_case" and self.reason is None:
            raise ValueError(
                "splits.patients: unit each_case needs its reason: how is it known that no two cases are of one "
                "patient?"
            )
        if self.unit == "named" and self.reason is not None:
            raise ValueError(
                "splits.patients: the reason is for unit each_case; name the unit, or leave the reason out"
            )
        return self


class Splits(Strict):
    """Shares of patients in each split, where the data give no splits of their own; and what counts as one.

    Attributes:
        train, val, test: they add up to 1.
        patients: whose the cases are that name no patient.
        patient_from: where in a case's path below the data's root its patient is named, such as
            `**/{patient}/*/*`: `*` stands for what is within one name, `**` for any folders. It counts where no
            column names the patient, and before the file's header.
        near_duplicate_bits: cases of different splits whose perceptual hashes differ by so many of 256 bits at most
            count as copies: made splits keep them together, given splits that part them are refused, and a run with
            them is INVALID. Copies within the test split count once. Null looks for none.
        similar_bits: cases of different splits within so many bits are reported; null reports none.
        reviewed: pairs that are no copies though they look so.
        excluded_limit: largest share of the test split, and of each class in it, that may be left out as unusable; with
            more a verdict is INCONCLUSIVE at best.
        excluded_worst_case: `reported`, what would be had the release lost every case that was left out; `must_pass`,
            a verdict is INCONCLUSIVE at best where an endpoint would then not pass.
    """

    train: OpenFraction = 0.6
    val: OpenFraction = 0.2
    test: OpenFraction = 0.2
    patients: Patients = Patients()
    patient_from: PatientPattern | None = None
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)] | None = 16
    similar_bits: Annotated[int, Field(ge=0, le=64)] | None = 40
    reviewed: tuple[Reviewed, ...] = ()
    excluded_limit: Fraction = 0.05
    excluded_worst_case: Literal["reported", "must_pass"] = "reported"

    @model_validator(mode="after")
    def _consistent(self) -> Splits:
        if abs(self.train + self.val + self.test - 1.0) > 1e-9:
            raise ValueError(f"splits must add up to 1, got {self.train + self.val + self.test:g}")
        return self

    @property
    def each_case(self) -> bool:
        """Whether each case that names no patient is stated to be a patient of its own."""
        return self.patients.unit == "each_case"

    def is_copy(self, one: str, other: str, bits: int) -> bool:
        """Whether two cases count as copies of one image.

        Args:
            one: a case's pseudonym.
            other: another's.
            bits: by which their perceptual hashes differ.
        """
        if self.near_duplicate_bits is None or bits > self.near_duplicate_bits:
            return False
        return all({one, other} != set(pair.cases) for pair in self.reviewed)


class Teacher(Strict):
    """Distillation from the frozen clean path: L = (1 - weight) CE + weight T^2 KL."""

    weight: Fraction = 0.0
    temperature: Annotated[float, Field(gt=0)] = 2.0


RATES = {"full": 5e-4, "norm": 4e-3, "lora": 3e-3}


class Hardening(Strict):
    """How the robust branch is trained.

    Attributes:
        branch: `full` trains every weight; `norm` trains the affine parameters of normalisation layers and the
            classifier, over frozen weights; `lora` trains these and low-rank updates of all other weights.
        rank: of the updates of `lora`, at most; less where one would take more than a twelfth of a layer's weights.
        method: `carried` is medharden's; `pgd`, `trades`, `n-fgsm`, `fgsm-rs` and `free` are what others train with,
            for comparison under the same schedule, data and evaluation.
        attack_steps: gradient steps of `pgd` and `trades`.
        replays: steps on each batch of `free`; its epochs are divided by it.
        trades_beta: weight of the divergence in `trades`.
        epochs, batch_size, weight_decay: of AdamW under a one-cycle schedule.
        learning_rate: the schedule's peak; left out, that of the branch form.
        min_steps: epochs are added until at least this many steps are taken (small cohorts need more passes).
        warmup: share of the schedule in which the learning rate rises.
        margin_step: by how much the margin of a case grows, as a share of eps (`ima`).
        hold: share of the schedule at radius 0, before the ramp; .25 under `eps-scheduling` unless stated.
        ramp: share of the schedule in which the radius then rises from 0 to eps.
        step: the carried perturbation's step, as a fraction of the case's radius.
        regulate: whether each case's radius follows the branch's own outcome, from 0.5 to 1.5 of the common one.
        clean_share: share of each batch left clean.
        teacher: distillation from the clean path.
        grad_clip: largest gradient norm.
        flip: whether training mirrors images left to right (keep false where sides matter, as on chest X-rays).
        shift: largest random translation, in pixels.
        photometric: largest random change of each case's gamma, contrast and brightness, as a logarithm of the factor;
            0 where values are calibrated, as Hounsfield units are.
        probe_steps, probe_cases: of the attack on validation that probes each epoch and each fusion weight.
    """

    branch: Literal["full", "norm", "lora"] = "full"
    rank: Annotated[int, Field(ge=1)] = 8
    method: Literal["carried", "pgd", "trades", "n-fgsm", "fgsm-rs", "free", "eps-scheduling", "ima"] = "carried"
    attack_steps: Annotated[int, Field(ge=1)] = 10
    replays: Annotated[int, Field(ge=1)] = 4
    trades_beta: Annotated[float, Field(ge=0)] = 6.0
    margin_step: Annotated[float, Field(gt=0, le=1)] = 0.1
    epochs: Annotated[int, Field(ge=1)] = 24
    min_steps: Annotated[int, Field(ge=1)] = 600
    batch_size: Annotated[int, Field(ge=2)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: OpenFraction = 0.25
    hold: Fraction = 0.0
    ramp: Fraction = 0.5
    step: Annotated[float, Field(gt=0, le=2)] = 1.0
    regulate: bool = True
    clean_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    teacher: Teacher = Teacher()
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    flip: bool = False
    shift: Annotated[int, Field(ge=0)] = 0
    photometric: Annotated[float, Field(ge=0, le=1)] = 0.2
    probe_steps: Annotated[int, Field(ge=1)] = 5
    probe_cases: Annotated[int, Field(ge=1)] = 64

    @model_validator(mode="before")
    @classmethod
    def _rated(cls, given: Any) -> Any:
        """A branch form brings its learning rate, and eps-scheduling its time without an attack."""
        if isinstance(given, dict) and given.get("method") == "eps-scheduling":
            given = {"hold": 0.25, **given}
        branch = given.get("branch") if isinstance(given, dict) else None
        if isinstance(branch, str) and branch in RATES:
            return {"learning_rate": RATES[branch], **given}
        return given

    @model_validator(mode="after")
    def _scheduled(self) -> Hardening:
        if self.hold + self.ramp > 1:
            raise ValueError(
                f"hardening: hold {self.hold:g} and ramp {self.ramp:g} are more than the whole schedule, so eps would "
                "never be reached; expected a sum of 1 at most"
            )
        return self


class Protocol(Strict):
    """Every scientific choice of a run (`protocols/*.yaml`).

    Attributes:
        schema_version: of this file format; 1.
        intended_use: what the model is for and for whom, for the report.
        seed: of splits, sampling, training and attacks.
    """

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    title: str
    intended_use: str
    task: Task = Task()
    cases: Cases = Cases()
    columns: Columns = Columns()
    input: Input = Input()
    model: ModelSpec = ModelSpec()
    splits: Splits = Splits()
    threat: ThreatModel
    hardening: Hardening = Hardening()
    fusion: Fusion = Fusion()
    suite: Suite = Suite()
    endpoints: Endpoints = Endpoints()
    shift: Shift = Shift()
    subgroups: Subgroups = Subgroups()
    report: Statements = Statements()
    change_control: ChangeControl = ChangeControl()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 20220413

    @model_validator(mode="after")
    def _units(self) -> Protocol:
        if self.threat.space == "input":
            self.threat.in_input_units(self.input.intensity)
        if self.threat.bounds != (0.0, 1.0):
            raise ValueError("threat.bounds: models take [0, 1] here; other ranges are mapped by input.intensity")
        return self

    @model_validator(mode="after")
    def _endpoints_of_the_task(self) -> Protocol:
        asked = {m.metric for m in self.endpoints.noninferiority}
        foreign = {"balanced_accuracy"} if self.task.multilabel else set(FINDING_METRICS)
        unfit = sorted(asked & (foreign if self.task.ordinal else foreign | set(GRADE_METRICS)))
        if unfit:
            raise ValueError(f"endpoints.noninferiority: {', '.join(unfit)} is not for task.kind {self.task.kind}")
        named = {name for m in self.endpoints.noninferiority for name in m.findings or ()}
        if not named <= set(self.task.classes or () if self.task.multilabel else ()):
            raise ValueError(
                f"endpoints.noninferiority: {sorted(named)} are not all findings of a multilabel task.classes"
            )
        self._check_class_keys()
        if self.task.multilabel and "noninferiority" not in self.endpoints.model_fields_set:
            raise ValueError(
                "task.kind multilabel needs endpoints.noninferiority written out: all that it lists are co-primary, "
                "which over many findings is a choice that no default can make"
            )
        return self

    @model_validator(mode="after")
    def _prevalence_of_the_positive(self) -> Protocol:
        if self.report.prevalence is not None and (self.task.multilabel or self.task.positive is None):
            raise ValueError("report.prevalence is of the positive one of two classes: name it in task.positive")
        return self

    @model_validator(mode="after")
    def _grades_moved(self) -> Protocol:
        moved, grades = self.suite.moved_grades, len(self.task.classes or ())
        if moved > 1 and not (self.task.ordinal and grades >= 2 * moved):
            raise ValueError(
                f"suite.moved_grades {moved} is for task.kind ordinal with {2 * moved} grades or more, so that each "
                f"has another {moved} away"
            )
        return self

    @model_validator(mode="after")
    def _further_endpoints(self) -> Protocol:
        task, wanted = self.task, self.endpoints
        if wanted.operating_points and (task.multilabel or task.positive is None):
            raise ValueError("endpoints.operating_points are of two classes: name the positive one in task.positive")
        columns = set(self.subgroups.columns)
        for one in wanted.worst_group:
            if not columns or not set(one.columns or ()) <= columns:
                raise ValueError(
                    f"endpoints.worst_group: {one.metric} is of groups that subgroups.columns declares; it has "
                    f"{sorted(columns)}"
                )
        return self

    def _check_class_keys(self) -> None:
        task = self.task
        names, keys = task.classes or (), {m.metric: m.by_class for m in self.endpoints.noninferiority}
        unknown = {
            **{
                f"endpoints.noninferiority {metric}.by_class": self._unknown(by_class)
                for metric, by_class in keys.items()
            },
            "endpoints.robustness.by_class": self._unknown(self.endpoints.robustness.by_class),
            "fusion.referral_by_class": sorted(set(self.fusion.referral_by_class) - set(names)),
        }
        for place, found in unknown.items():
            if found and task.classes is None:
                raise ValueError(f"{place}: {found} can't be told to be classes; write out task.classes")
            if found:
                raise ValueError(f"{place}: {found} are none of task.classes {list(names)}")

    def _unknown(self, keys: Iterable[str]) -> list[str]:
        task = self.task
        return unknown_keys(keys, task.classes or (), multilabel=task.multilabel, positive=task.positive is not None)

    @property
    def digest(self) -> str:
        """SHA-256 over the RFC 8785 form of every field, defaults included: what was decided, not how it was typed."""
        return hashlib.sha256(rfc8785.dumps(self.model_dump(mode="json"))).hexdigest()

    @property
    def input_threat(self) -> ThreatModel:
        """The threat with eps in the model's [0, 1] input range.

        Raises:
            ProtocolError: it acts on stored values, which have no such eps.
        """
        try:
            return self.threat.in_input_units(self.input.intensity)
        except ValueError as error:
            raise ProtocolError(str(error)) from None

    def decision_rule(self, classes: int) -> str:
        """How one of `classes` is answered: `argmax`, or the probability from which the positive or a finding is."""
        if self.task.multilabel:
            return self.task.rule_of_findings
        if classes != 2 or self.task.positive is None or self.task.threshold == 0.5:
            return "argmax"
        return f"{self.task.threshold_of(self.task.positive):g}"

    @property
    def margins_justified(self) -> bool:
        """Whether every margin, floor and gain carries a clinical justification."""
        return not self.unjustified

    @property
    def unjustified(self) -> tuple[str, ...]:
        """The margins and floors that carry none, in words."""
        robustness = self.endpoints.robustness
        bounds = [(name, b) for m in self.endpoints.noninferiority for name, b in m.bounds.items()]
        bounds += [(f"shift {name}", bound) for name, bound in self.shift.bounds.items()]
        bare = [f"{name} margin {bound.margin:g}" for name, bound in bounds if not bound.justification]
        if not robustness.justification:
            bare.append(f"robustness floor {robustness.floor:g}")
        floors = robustness.by_class.items()
        return (
            *bare,
            *(f"robustness floor of {name} {of.floor:g}" for name, of in floors if not of.justification),
        )
