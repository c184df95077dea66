"""`evaluate()`: clean and attacked outcome of every test case, for the original, the branch and what ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor, nn

from medharden.attacks import SuiteResult, run_suite
from medharden.audit import (
    audited,
    canonical_json,
    describe_environment,
    digest_bytes,
    digest_file,
    read_history,
    write_atomic,
    write_cases,
    write_record,
)
from medharden.data import Cohort, group_values
from medharden.data.sampling import stratified_sample
from medharden.errors import RunError
from medharden.models import (
    Classifier,
    DecisionView,
    HardenedClassifier,
    logits_in_batches,
    state_digest,
)
from medharden.protocol import Protocol
from medharden.record import (
    AttackOutcome,
    CaseTable,
    Evaluation,
    Finding,
    Identity,
    Progress,
    SubjectOutcome,
    SubjectTable,
)

__all__ = ["evaluate"]

_EXAMPLES_A_CLASS = 2
_TRANSFER = "transfer"


@dataclass(frozen=True)
class _Subject:
    """One model under evaluation, with its answers and what the attacks did to them."""

    name: str
    view: nn.Module
    bias: Tensor
    logits: Tensor
    referred: Tensor


def evaluate(
    model: HardenedClassifier,
    cohort: Cohort,
    protocol: Protocol,
    run: Path,
    *,
    original: Classifier | None,
    batch_size: int = 64,
    device: str = "cpu",
    with_examples: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Opens the test split: clean answers of all cases, attacks on all or on the protocol's sample.

    Writes `cases.parquet`, `evaluation.json` and, where allowed, `examples.safetensors`.

    Args:
        model: the hardened model of this run.
        cohort: the run's cohort; its `test` split is used.
        protocol: the run's protocol.
        run: the run directory.
        original: the model loaded anew from its file; null compares with the stored clean path only, and says so.
        batch_size: cases a pass; does not change what is measured, and the bits are compared within equal batches.
        device: such as `cpu` or `cuda:0`.
        with_examples: store a few cases as pictures for the report. Off for patient images.
        progress: called with `attack original`, `attack branch`, `attack release`.

    Raises:
        RunError: the cohort is not the one the run was locked to, or the protocol's looks are used up.
        OutputError: the run directory can't be written to.
    """
    digests = {"cohort": digest_file(run / "cohort.json"), "hardened": digest_file(run / "hardened.safetensors")}
    if digests["cohort"] != digest_bytes(canonical_json(cohort.record) + b"\n"):
        raise RunError(
            f"{run.name} was hardened on other data, or under another pseudonym key; expected the same --data and key"
        )
    with audited(run, "evaluate", protocol=protocol.digest, **digests) as log:
        _require_a_look(run, protocol)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        log.append("evaluate.test_split_opened", cases=len(cohort.indices("test")))
        model = model.to(device)
        reference = (original or model.clean_path).to(device)
        inputs, labels = (t.to(device) for t in cohort.batch(cohort.indices("test")))
        identity = _identity(reference, model, inputs, batch_size, "file" if original is not None else "none")
        subjects = _subjects(reference, model, inputs, batch_size)
        sample = torch.as_tensor(
            stratified_sample(labels.cpu().numpy(), protocol.suite.cases, protocol.seed), device=device
        )
        results = _attack_all(subjects, inputs[sample], labels[sample], protocol, batch_size, device, progress)
        results["composite"] = _with_transfer(subjects[-1], results, inputs[sample], labels[sample], batch_size)
        table = _case_table(cohort, protocol, subjects, results, labels, sample)
        cases_digest = write_cases(run / "cases.parquet", table)
        if with_examples:
            write_atomic(run / "examples.safetensors", _examples(subjects, results, inputs[sample], labels[sample]))
        record = Evaluation(
            protocol=protocol.digest,
            cohort=digests["cohort"],
            hardened=digests["hardened"],
            cases=cases_digest,
            split="test",
            classes=cohort.classes,
            threat=describe_threat(protocol),
            decision_threshold=protocol.decision_rule(len(cohort.classes)),
            subjects=tuple(_outcome(s, results[s.name], table) for s in subjects),
            identity=identity,
            environment=describe_environment(device, torch.get_num_threads()),
            started=started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            findings=_findings(identity, results, table, protocol),
        )
        log.append("evaluate.recorded", cases=cases_digest, record=write_record(run / "evaluation.json", record))
        return record


def describe_threat(protocol: Protocol) -> str:
    """The threat in words and numbers, such as `linf, eps 2 (1/255) = 0.00784 of the input range [0, 1]`."""
    threat = protocol.threat
    return (
        f"{threat.norm}, eps {threat.eps:g} ({threat.unit}) = {protocol.input_threat.eps:.5g} "
        f"of the input range [{threat.bounds[0]:g}, {threat.bounds[1]:g}]"
    )


def _require_a_look(run: Path, protocol: Protocol) -> None:
    """Stops before the test split is opened where the protocol's budget of looks is used up."""
    finished, budget = read_history(run / "audit.jsonl").finished, protocol.endpoints.looks
    if finished >= budget:
        raise RunError(
            f"the test split of {run.name} was evaluated {finished} times, and the protocol's endpoints.looks allows "
            f"{budget}: evaluating until a verdict pleases makes it worthless. The finished evaluation stands; to look "
            "again, harden a new run under a protocol that states more looks"
        )


@torch.no_grad()
def _identity(
    reference: Classifier, model: HardenedClassifier, inputs: Tensor, batch_size: int, against: str
) -> Identity:
    """Whether the released clean path is the original: the state, and every test case's logits in equal batches."""
    first = logits_in_batches(reference, inputs, batch_size)
    second = logits_in_batches(model.clean_path, inputs, batch_size)
    return Identity(
        against=against,
        state_equal=state_digest(reference) == state_digest(model.clean_path),
        logits_equal=torch.equal(first, second),
        max_abs_difference=float((first - second).abs().max()),
        cases=len(inputs),
    )


@torch.no_grad()
def _subjects(
    reference: Classifier, model: HardenedClassifier, inputs: Tensor, batch_size: int
) -> tuple[_Subject, _Subject, _Subject]:
    bias = model.decision_bias
    none = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
    parts = [model.assess(part) for part in torch.split(inputs, batch_size)]
    released = torch.cat([p.logits for p in parts]), torch.cat([p.referred for p in parts])

    def plain(name: str, network: nn.Module) -> _Subject:
        return _Subject(name, DecisionView(network, bias), bias, logits_in_batches(network, inputs, batch_size), none)

    return (
        plain("original", reference),
        plain("robust_branch", model.robust_branch),
        _Subject("composite", model.decision_view(), bias, *released),
    )


def _attack_all(
    subjects: tuple[_Subject, ...],
    inputs: Tensor,
    labels: Tensor,
    protocol: Protocol,
    batch_size: int,
    device: str,
    progress: Progress | None,
) -> dict[str, SuiteResult]:
    stages = {"original": "attack original", "robust_branch": "attack branch", "composite": "attack release"}
    return {
        s.name: run_suite(
            s.view,
            inputs,
            labels,
            threat=protocol.input_threat,
            suite=protocol.suite.attacks,
            seed=protocol.seed,
            batch_size=batch_size,
            device=device,
            progress=progress,
            stage=stages[s.name],
        )
        for s in subjects
    }


@torch.no_grad()
def _with_transfer(
    composite: _Subject, results: dict[str, SuiteResult], inputs: Tensor, labels: Tensor, batch_size: int
) -> SuiteResult:
    """Tries what beat each path alone on the release: a case is robust only if that fails too."""
    own = results["composite"]
    won, adversarial = list(own.won_by), own.adversarial.clone()
    outcomes = list(own.outcomes)
    for source in ("original", "robust_branch"):
        candidates = results[source].adversarial
        logits = logits_in_batches(composite.view, candidates, batch_size)
        lost = _wrong_and_unreferred(logits, labels, composite.view)
        tried = [i for i, name in enumerate(won) if name == ""]
        for i in tried:
            if bool(lost[i]):
                won[i], adversarial[i] = f"{_TRANSFER}-{source}", candidates[i]
        wins = sum(won[i] != "" for i in tried)
        recipe = f"what the suite found against the {source.replace('_', ' ')}, tried on the release"
        outcomes.append(AttackOutcome(f"{_TRANSFER}-{source}", recipe, len(tried), wins, 0.0))
    return SuiteResult(adversarial, tuple(won), tuple(outcomes), own.findings)


def _wrong_and_unreferred(logits: Tensor, labels: Tensor, view: nn.Module) -> Tensor:
    answer = logits.argmax(1)
    wrong = answer != labels
    return wrong & (answer != logits.shape[1] - 1) if getattr(view, "refers", False) else wrong


def _case_table(
    cohort: Cohort,
    protocol: Protocol,
    subjects: tuple[_Subject, ...],
    results: dict[str, SuiteResult],
    labels: Tensor,
    sample: Tensor,
) -> CaseTable:
    cases = [cohort.cases[i] for i in cohort.indices("test")]
    rows = sample.cpu().numpy()
    attacked = np.zeros(len(cases), dtype=np.bool_)
    attacked[rows] = True
    truth = labels.cpu().numpy()
    return CaseTable(
        case=tuple(c.case for c in cases),
        patient=tuple(c.patient for c in cases),
        label=truth.astype(np.int64),
        attacked=attacked,
        subjects={s.name: _subject_table(s, results[s.name], truth, rows) for s in subjects},
        groups=group_values(cases, protocol.subgroups),
    )


def _subject_table(
    subject: _Subject, result: SuiteResult, truth: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> SubjectTable:
    predicted = (subject.logits + subject.bias).argmax(1).cpu().numpy().astype(np.int64)
    right = predicted == truth
    won = np.where(right, "", "clean").astype(object)
    won[rows] = np.where(right[rows], np.array(result.won_by, dtype=object), "clean")
    robust = np.zeros(len(truth), dtype=np.bool_)
    robust[rows] = right[rows] & (won[rows] == "")
    return SubjectTable(
        predicted=predicted,
        probabilities=subject.logits.double().softmax(1).cpu().numpy(),
        robust=robust,
        won_by=tuple(won.tolist()),
        referred=subject.referred.cpu().numpy(),
    )


def _outcome(subject: _Subject, result: SuiteResult, table: CaseTable) -> SubjectOutcome:
    rows = table.subjects[subject.name]
    return SubjectOutcome(
        name=subject.name,
        n=len(table.label),
        clean_correct=int((rows.predicted == table.label).sum()),
        attacked=int(table.attacked.sum()),
        robust_correct=int(rows.robust.sum()),
        referred=int(rows.referred.sum()),
        attacks=result.outcomes,
    )


def _findings(
    identity: Identity, results: dict[str, SuiteResult], table: CaseTable, protocol: Protocol
) -> tuple[Finding, ...]:
    found = []
    if identity.against == "none":
        message = "The original file was not given, so the clean path was compared with its own stored copy only."
        found.append(Finding("identity.not_against_file", "warning", message))
    for name, result in results.items():
        found += [Finding(f.code, f.severity, f"{name}: {f.message}") for f in result.findings]
    released = table.subjects["composite"]
    if np.unique(released.predicted).size == 1:
        message = "The release gives every test case the same answer; a constant answer is robust and useless."
        found.append(Finding("evaluation.constant_answer", "critical", message))
    if protocol.suite.cases is not None and protocol.suite.cases < len(table.label):
        message = f"Attacks ran on {int(table.attacked.sum())} of {len(table.label)} test cases, drawn by class."
        found.append(Finding("evaluation.sampled", "info", message))
    unknown = [name for name in protocol.subgroups.columns if name not in table.groups]
    if unknown:
        message = f"The test cases have no attribute {', '.join(unknown)}, in which the protocol asks for subgroups."
        found.append(Finding("evaluation.subgroups_unknown", "warning", message))
    return tuple(found)


@torch.no_grad()
def _examples(subjects: tuple[_Subject, ...], results: dict[str, SuiteResult], inputs: Tensor, labels: Tensor) -> bytes:
    """A few cases a class as pictures, those first that fool the original and not the release."""
    original, composite = results["original"], results["composite"]
    telling = [a not in ("", "clean") and b == "" for a, b in zip(original.won_by, composite.won_by, strict=True)]
    order = sorted(range(len(labels)), key=lambda i: (not telling[i], i))
    chosen = [
        i for k in sorted(set(labels.tolist())) for i in [j for j in order if int(labels[j]) == k][:_EXAMPLES_A_CLASS]
    ]

    def answers(subject: _Subject, images: Tensor) -> Tensor:
        columns: Callable[[Tensor], Tensor] = subject.view
        logits = columns(images[chosen])
        return logits.argmax(1).cpu()

    first, last = subjects[0], subjects[-1]
    tensors = {
        "clean": inputs[chosen].cpu(),
        "adversarial_original": original.adversarial[chosen].cpu(),
        "adversarial": composite.adversarial[chosen].cpu(),
        "label": labels[chosen].cpu(),
        "original_clean": answers(first, inputs),
        "original_attacked": answers(first, original.adversarial),
        "composite_clean": answers(last, inputs),
        "composite_attacked": answers(last, composite.adversarial),
    }
    return save({k: v.contiguous() for k, v in tensors.items()})
