"""An exported model on the test split: its clean answers, what beats the composite tried on it, a black-box search.

A runtime gives no gradient, so the suite runs anew on the original, the branch and the composite, as in `evaluate`, and
what it finds on any of them is replayed. Square searches on what still stands, through the runtime itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medharden.attacks import Criterion, SuiteResult
from medharden.attacks.dispatch import dispatch, recipe
from medharden.attacks.victim import Victim
from medharden.audit import (
    audited,
    describe_environment,
    guarded,
    write_cases,
    write_record,
)
from medharden.audit.inventory import is_signed
from medharden.data import Cohort
from medharden.errors import ModelError, RunError
from medharden.evaluating.attacked import attack_all, referred_under_attack, with_transfer
from medharden.evaluating.evaluated import digests_in_hand, require_evaluated
from medharden.evaluating.findings import Pushed, push_all
from medharden.evaluating.outcomes import case_table, outcome_of
from medharden.evaluating.subjects import Subject, subjects_of
from medharden.models import (
    HardenedClassifier,
    RuntimeModel,
    answers,
    logits_in_batches,
)
from medharden.protocol import Attack, Protocol
from medharden.record import ARTEFACTS, AttackOutcome, Evaluation, Finding, Progress
from medharden.rows import Cases, copy_of, parts, select
from medharden.stats.sampling import stratified_sample

__all__ = ["evaluate_artefact"]

_REPLAY = "replay"
_QUERIES = 500  # of Square, where the protocol's suite has none


class _RuntimeView(nn.Module):
    """What an attacker of the artefact faces, as `decision_view` gives it of the composite; without gradients."""

    def __init__(self, artefact: RuntimeModel, bias: Tensor, *, refers: bool, multilabel: bool) -> None:
        super().__init__()
        self.artefact, self.refers, self.multilabel = artefact, refers, multilabel
        self.register_buffer("bias", bias.detach().clone())
        self.eval()

    def outputs(self, inputs: Tensor) -> Mapping[str, Tensor]:
        return {name: value.to(inputs.device) for name, value in self.artefact(inputs).items()}

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, K) decision logits; with referral (N, K + 1), whose last column is above 0, or leads, where it refers."""
        found = self.outputs(inputs)
        columns = found["logits"] + self.get_buffer("bias")
        if not self.refers:
            return columns
        edge = torch.zeros_like(columns[:, 0]) if self.multilabel else columns.amax(1)
        return torch.cat([columns, torch.where(found["refer"], edge + 1, edge - 1)[:, None]], dim=1)


def evaluate_artefact(
    model: HardenedClassifier,
    artefact: RuntimeModel,
    cohort: Cohort,
    protocol: Protocol,
    run: Path,
    *,
    batch_size: int = 64,
    device: str = "cpu",
    supersede: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Answers the test split with an artefact and attacks it; writes its evaluation and cases below `artefacts/ID`.

    Args:
        model: the composite of this run, from which the artefact was made.
        artefact: as `read_onnx` opens it.
        cohort: the run's cohort.
        protocol: the run's protocol.
        run: the run directory, which was evaluated.
        batch_size: cases a pass.
        device: of the composite; the artefact runs on the CPU.
        supersede: evaluate in a signed run, whose signatures then speak of an earlier state.
        progress: called with `attack release` and `attack artefact`.

    Raises:
        RunError: the run is signed, was not evaluated, or is of other data or weights.
        ModelError: the artefact is of another run, or its answers don't follow from its logits.
        OutputError: the run directory can't be written to.
    """
    if is_signed(run) and not supersede:
        raise RunError(
            f"{run.name} is signed, and its signatures would not hold this evaluation: evaluate artefacts before "
            "signing, or --supersede and have it signed anew"
        )
    digests = digests_in_hand(model, cohort, protocol)
    evaluated = require_evaluated(run, digests)
    unbound = _require_artefact(artefact, digests["hardened"])
    folder = run / ARTEFACTS / artefact.digest[:16]
    guard = guarded(cohort.identifiers, (protocol.model_dump_json(), *cohort.classes))
    with guard, audited(run, "artefact", artefact=artefact.digest, **digests) as log:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        log.append("artefact.test_split_opened", artefact=artefact.digest, cases=len(cohort.record.split("test")))
        model, test = model.to(device), cohort.indices("test")
        inputs, labels = cohort.stream(test, device), cohort.labels(test).to(device)
        subjects = subjects_of(model.clean_path, model, inputs, batch_size)
        composite = subjects[-1]
        view = _RuntimeView(
            artefact, model.decision_bias, refers=model.fusion.mode == "guarded", multilabel=model.multilabel
        )
        exported = _answered(view, model, inputs, batch_size)
        drawn = stratified_sample(labels.cpu().numpy(), protocol.suite.cases, protocol.seed)
        sample = torch.as_tensor(drawn, device=device)
        attacked, truth = select(inputs, sample), labels[sample]
        results = attack_all(subjects, attacked, truth, protocol, batch_size, device, progress)
        results["composite"] = with_transfer(
            composite, results, attacked, truth, batch_size, protocol.suite.moved_grades
        )
        results["artefact"] = _attacked(exported, results, attacked, truth, protocol, batch_size, progress)
        pushed: dict[str, Pushed] = {}
        if protocol.task.multilabel:
            numbers = torch.arange(len(sample))
            pushed, results = push_all(
                subjects, results, attacked, truth, protocol, batch_size, progress, numbers, beside=exported
            )
        referred = referred_under_attack(model, results["composite"], batch_size, device)
        table = case_table(cohort, protocol, (composite, exported), results, labels, sample, pushed, referred)
        if referred is not None:
            flags = np.zeros(len(labels), dtype=np.bool_)
            flags[drawn] = _referred(view, results["artefact"], batch_size)
            table.subjects["artefact"] = replace(table.subjects["artefact"], referred_attacked=flags)
        cases_digest = write_cases(folder / "cases.parquet", table)
        record = Evaluation(
            protocol=protocol.digest,
            cohort=digests["cohort"],
            hardened=digests["hardened"],
            cases=cases_digest,
            split="test",
            classes=cohort.classes,
            threat=evaluated.threat,
            decision_threshold=protocol.decision_rule(len(cohort.classes)),
            subjects=tuple(outcome_of(s, results[s.name], table) for s in (composite, exported)),
            identity=evaluated.identity,
            environment=describe_environment(artefact.runtime, torch.get_num_threads()),
            started=started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            findings=(*unbound, *results["composite"].findings),
            artefact=artefact.digest,
        )
        written = write_record(folder / "evaluation.json", record)
        base = f"{ARTEFACTS}/{folder.name}"
        files = {f"{base}/evaluation.json": written, f"{base}/cases.parquet": cases_digest}
        log.append("artefact.recorded", artefact=artefact.digest, files=files)
        return record


def _require_artefact(artefact: RuntimeModel, hardened: str) -> tuple[Finding, ...]:
    """Refuses what says that it is of other weights; of what says nothing that is a finding."""
    said = artefact.metadata.get("medharden.hardened")
    if said is None:
        message = "The artefact doesn't say what weights it is of: its metadata were lost on the way."
        return (Finding("artefact.unbound", "warning", message),)
    if said != hardened:
        raise ModelError(f"the artefact is of the weights sha256 {said[:12]}; the run's are {hardened[:12]}")
    return ()


@torch.no_grad()
def _answered(view: _RuntimeView, model: HardenedClassifier, inputs: Cases, batch_size: int) -> Subject:
    """The artefact with its clean answers.

    Raises:
        ModelError: other shapes than the composite's, values that are not finite, or answers of their own.
    """
    logits, referred = [], []
    for part in parts(inputs, batch_size):
        found = view.outputs(part)
        columns = found["logits"] + model.decision_bias
        if found["logits"].shape != (len(part), len(model.decision_bias)) or not found["logits"].isfinite().all():
            raise ModelError("the artefact's logits are not one finite number a class and case; is it of this run?")
        if not torch.equal(answers(columns, multilabel=model.multilabel), found["answer"].long()):
            raise ModelError("the artefact's answers don't follow from its logits; expected those of an exported run")
        logits.append(found["logits"].float())
        referred.append(found["refer"])
    flags = torch.cat(referred)
    if bool(flags.any()) and not view.refers:
        raise ModelError(f"the artefact refers cases, which a release in mode {model.fusion.mode} never does")
    return Subject("artefact", view, model.decision_bias, torch.cat(logits), flags)


@torch.no_grad()
def _attacked(
    exported: Subject,
    found: Mapping[str, SuiteResult],
    inputs: Cases,
    labels: Tensor,
    protocol: Protocol,
    batch_size: int,
    progress: Progress | None,
) -> SuiteResult:
    """What the suite found on the composite, tried on the artefact, then Square on what stands."""
    started, view = time.perf_counter(), exported.view
    criterion = Criterion(labels, refers=bool(view.refers), reach=protocol.suite.moved_grades)
    clean = criterion.exact.won(logits_in_batches(view, inputs, batch_size))
    won = ["clean" if wrong else "" for wrong in clean.tolist()]
    adversarial, stood = copy_of(found["composite"].adversarial), int((~clean).sum())
    for row in clean.nonzero().flatten().tolist():
        adversarial[row : row + 1] = inputs[row : row + 1]
    for name in ("composite", "robust_branch", "original"):
        points = found[name].adversarial
        beaten = criterion.won(logits_in_batches(view, points, batch_size))
        for row in [row for row, by in enumerate(won) if not by and bool(beaten[row])]:
            won[row] = _REPLAY
            adversarial[row : row + 1] = points[row : row + 1]
    outcomes = [
        AttackOutcome(
            _REPLAY,
            "the strongest points that the suite found on composite, branch and original, tried on the artefact",
            stood,
            won.count(_REPLAY),
            time.perf_counter() - started,
        )
    ]
    asked = [attack for attack in protocol.suite.attacks if attack.attack == "square"]
    attack = asked[0] if asked else Attack(attack="square", steps=_QUERIES)
    started, standing = time.perf_counter(), [row for row, name in enumerate(won) if not name]
    for at in range(0, len(standing), batch_size):
        rows = torch.tensor(standing[at : at + batch_size], device=labels.device)
        if progress is not None:
            progress("attack artefact", at, len(standing))
        victim = Victim(view, criterion.of(rows), "margin")
        best = dispatch(
            victim,
            inputs[rows],
            [_generator(protocol.seed, row) for row in rows.tolist()],
            protocol.input_threat,
            attack,
        )
        fallen = criterion.of(rows).won(victim.logits(best.points))
        for place in fallen.nonzero().flatten().tolist():
            row = int(rows[place])
            won[row] = attack.name
            adversarial[row : row + 1] = best.points[place : place + 1]
    if progress is not None:
        progress("attack artefact", len(standing), len(standing))
    said = f"{recipe(attack, protocol.input_threat, protocol.seed)}, through the runtime"
    wins = won.count(attack.name)
    outcomes.append(AttackOutcome(attack.name, said, len(standing), wins, time.perf_counter() - started))
    return SuiteResult(adversarial, tuple(won), tuple(outcomes), ())


def _generator(seed: int, row: int) -> torch.Generator:
    """A case's own randomness."""
    digest = hashlib.sha256(f"{seed}/artefact/{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def _referred(view: _RuntimeView, result: SuiteResult, batch_size: int) -> npt.NDArray[np.bool_]:
    """(n,) which attacked cases the artefact refers at the strongest input that was found for each."""
    return torch.cat([view.outputs(part)["refer"] for part in parts(result.adversarial, batch_size)]).cpu().numpy()
