"""What validation may cost: probes and calibration together at most a quarter of training, counted in passes.

A unit is a forward pass of one case through one network. A backward pass counts one for the gradient of the inputs and
one for that of the weights, which take about as many multiplications each. So an answer is 1, a gradient of an attack
2, a training step of `full` or `lora` 3 a case, of `norm` 2. Counts, unlike seconds, are the same on every machine:
how many cases are attacked, and with it what is released, does not hang on how busy one was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from medharden.attacks.victim import refers
from medharden.hardening.schedule import epochs_and_batches
from medharden.protocol import Hardening
from medharden.record import Finding, ValidationRecord
from medharden.text import counted

__all__ = [
    "ANSWER",
    "GRADIENT",
    "LEAST",
    "MOST_SEARCHED",
    "PATHS",
    "Account",
    "Allotment",
    "Counted",
    "answers_paid",
    "passes_a_step",
]
__all__ += ["training_work", "validation_record", "validation_work"]

ANSWER, GRADIENT = 1, 2
PATHS = 2  # networks in a release
FEW = 10  # cases, below which a probe is made less often
LEAST = 8  # cases that are attacked however short training is; where a quarter does not pay for them, a finding says so
MOST_SEARCHED = 512  # cases that calibration attacks
_STEPS_AGAIN = 2  # of the probe's attack, beyond those of the epochs before
_PROBES_LEFT = 10  # at least, where epochs are as many
_WEIGHTS_ATTACKED = 4  # those that may be chosen
_VALIDATION, _PROBES, _PROBES_LEAST = 1 / 4, 1 / 5, 1 / 6  # of training
_DRAWN = 8  # weights that calibration looks at


def passes_a_step(settings: Hardening) -> int:
    """Forward and backward passes of a training step, of which all but one are of the attack."""
    if settings.method in ("pgd", "eps-scheduling", "trades", "ima"):
        return settings.attack_steps + (
            2 if settings.method in ("trades", "ima") else 1
        )  # which answer clean cases too
    return 2 if settings.method in ("n-fgsm", "fgsm-rs") else 1


def training_work(settings: Hardening, cases: int) -> int:
    """All of training, in forward passes of a case.

    Args:
        settings: method, epochs, batch size, branch form.
        cases: of the training split.
    """
    epochs, _ = epochs_and_batches(settings, cases)
    step = (2 if settings.branch == "norm" else 3) + GRADIENT * (passes_a_step(settings) - 1)
    return epochs * cases * step * (settings.replays if settings.method == "free" else 1)


def _for_probes(settings: Hardening, training: int) -> int:
    attack = GRADIENT * (settings.probe_steps + 1)
    a_case = attack + ANSWER + _DRAWN * PATHS * (attack + 2 * ANSWER)
    quarter = int(_VALIDATION * training)
    return min(int(_PROBES * training), max(quarter - LEAST * a_case, int(_PROBES_LEAST * training)))


@dataclass(frozen=True)
class Allotment:
    """After which epochs validation is probed, and how many cases of it are answered and attacked; drawn by class.

    Attributes:
        training: `training_work`.
        epochs: of training.
        every: so many epochs end in a probe, and the last does; more than one where an epoch is a few steps.
        answered: cases that a probe answers.
        attacked: those of them that it attacks.
        of_probes: what probes may take.
    """

    training: int
    epochs: int
    every: int
    answered: int
    attacked: int
    of_probes: int

    @classmethod
    def of(cls, settings: Hardening, cases: int, validation: int) -> Allotment:
        """As many as a fifth of training pays for, or less, and a sixth at least, where the
        quarter would not pay for the least that calibration looks at: at most all, and at most `probe_cases` attacked.

        Where that does not pay for all, answers and attacks have half of it each at least. Where it pays for fewer
        attacks than `FEW` after each epoch, there are fewer probes: an accuracy of a handful of cases tells nothing.

        Args:
            settings: method, schedule, branch form, steps and cases of the probe.
            cases: of the training split.
            validation: cases of the validation split.
        """
        epochs, _ = epochs_and_batches(settings, cases)
        for every in range(1, max(1, epochs // _PROBES_LEFT) + 1):
            made = cls._with(settings, training_work(settings, cases), epochs, every, validation)
            if made.attacked >= min(FEW, settings.probe_cases, validation):
                break
        return made

    @classmethod
    def _with(cls, settings: Hardening, work: int, epochs: int, every: int, validation: int) -> Allotment:
        probes = -(-epochs // every)
        first, later = (GRADIENT * steps + ANSWER for steps in (settings.probe_steps, cls.steps_again(settings)))
        attack, answer = first + (probes - 1) * later, ANSWER * (probes + 1)  # the original answers too
        budget, most = _for_probes(settings, work), min(settings.probe_cases, validation)
        left = budget - min(validation * answer, budget // 2)
        attacked = max(min(LEAST, most), min(most, left // attack))
        answered = max(attacked, min(validation, (budget - attacked * attack) // answer))
        return cls(work, epochs, every, answered, attacked, budget)

    def probed(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, ends in a probe."""
        return (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs

    @property
    def probes(self) -> int:
        """How many probes there are."""
        return -(-self.epochs // self.every)

    @staticmethod
    def steps_again(settings: Hardening) -> int:
        """Steps of a probe's attack after the first."""
        return min(_STEPS_AGAIN, settings.probe_steps)

    @property
    def limit(self) -> int:
        """What probes and calibration may take together."""
        return int(_VALIDATION * self.training)

    def all_probes(self, settings: Hardening) -> int:
        """What probes take, and the original's answers before them, if accuracy never falls."""
        again = (self.probes - 1) * self.probe(settings, first=False)
        return ANSWER * self.answered + self.probe(settings, first=True) + again

    def probe(self, settings: Hardening, *, first: bool) -> int:
        """What a probe takes whose accuracy has not fallen."""
        steps = settings.probe_steps if first else self.steps_again(settings)
        return ANSWER * self.answered + (GRADIENT * steps + ANSWER) * self.attacked


def validation_work(settings: Hardening, cases: int, validation: int, *, mixed: bool) -> tuple[int, int]:
    """What probes take if accuracy never falls, and calibration if every case withstands every attack.

    Args:
        settings: as `Allotment.of` takes them.
        cases: of the training split.
        validation: cases of the validation split.
        mixed: whether a weight is chosen.
    """
    allotment = Allotment.of(settings, cases, validation)
    probes, attack = allotment.all_probes(settings), GRADIENT * (settings.probe_steps + 1)
    a_case = attack + ANSWER + _WEIGHTS_ATTACKED * PATHS * (attack + 2 * ANSWER)
    asked = PATHS * ANSWER * validation + (min(MOST_SEARCHED, validation) * a_case if mixed else 0)
    return probes, min(asked, allotment.limit - probes)


@dataclass
class Account:
    """What was spent of a limit; of several processes, by all together where all count alike."""

    limit: int
    spent: int = 0

    @property
    def left(self) -> int:
        """What may still be spent; less than 0 where too much was."""
        return self.limit - self.spent

    def spend(self, work: int) -> None:
        """Counts work in."""
        self.spent += work


def answers_paid(account: Account, cases: int) -> int:
    """How many of so many validation cases both paths answer for calibration: half of what is left pays for them."""
    return min(cases, max(LEAST, account.left // (2 * PATHS * ANSWER)))


def validation_record(
    allotment: Allotment, cases: int, calibrated: int, searched: int, shortened: int, work: int
) -> tuple[ValidationRecord, tuple[Finding, ...]]:
    """What goes on record, and a finding where training did not pay for all of validation, or was exceeded.

    Args:
        allotment: of the probes.
        cases: of the validation split.
        calibrated: answered by calibration.
        searched: attacked by it at each weight that may be chosen.
        shortened: probes whose attack was not gone on with.
        work: of probes and calibration.
    """
    record = ValidationRecord(
        cases,
        allotment.probes,
        allotment.answered,
        allotment.attacked,
        calibrated,
        searched,
        shortened,
        work,
        allotment.training,
    )
    share = f"{work / allotment.training:.2f} of the work of training"
    said = (
        f"Of {cases} validation cases each of {allotment.probes} probes answered {record.answered} and attacked "
        f"{record.attacked}; calibration answered {calibrated}"
        + (f" and attacked {searched}" if searched else "")
        + f". Together they took {share}"
    )
    if work > allotment.limit:
        least = f"{said}, more than a quarter, which does not pay for the least that is looked at: train longer."
        return record, (Finding("hardening.validation_work", "warning", least),)
    whole = min(record.answered, calibrated) == cases and searched in (0, min(MOST_SEARCHED, cases))
    if whole and not shortened and allotment.every == 1:
        return record, ()
    looked = f"in {counted(shortened, 'probe')} the attack was not made longer though accuracy had fallen"
    short = f"; {looked}" if shortened else ""
    message = f"{said}, of which they may take a quarter{short}."
    return record, (Finding("hardening.validation_work", "info", message),)


class Counted(nn.Module):
    """A model whose passes are counted."""

    def __init__(self, model: nn.Module, networks: int, spend: Callable[[int], None]) -> None:
        """Takes a model of so many networks, and where its passes are counted."""
        super().__init__()
        self.model, self.refers, self.training = model, refers(model), model.training
        self._networks, self._spend = networks, spend

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's answer."""
        self._spend(len(inputs) * self._networks * (GRADIENT if inputs.requires_grad else ANSWER))
        logits: Tensor = self.model(inputs)
        return logits
