"""The same protocol under other seeds, to show how much of a result is chance; their models are not kept.

The released model is fixed and on record before any other is trained, and all are measured on validation alone: nothing
is chosen, and the test split is not opened.
"""

from __future__ import annotations

import copy
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch

from medharden.attacks import run_suite
from medharden.attacks.dispatch import recipe
from medharden.audit import RunFiles, audited, describe_environment, guarded, write_record
from medharden.data import Cohort
from medharden.errors import RunError
from medharden.hardening.run import decision_bias, harden
from medharden.models import (
    Classifier,
    DecisionView,
    HardenedClassifier,
    answered_rightly,
    load_hardened,
    logits_in_batches,
)
from medharden.protocol import Attack, Protocol
from medharden.record import HardenRecord, Progress, SeedOutcome, StabilityRecord
from medharden.rows import parts, select
from medharden.stats.sampling import stratified_sample

__all__ = ["MOST_SEEDS", "measure_stability", "seeds_of"]

MOST_SEEDS = 20
_ATTACK = Attack(attack="apgd", loss="margin", steps=20)
_FILE = "stability.json"


def seeds_of(protocol: Protocol, count: int) -> tuple[int, ...]:
    """The protocol's own seed and those after it, so that none is picked."""
    return tuple((protocol.seed + k) % 2**31 for k in range(count))


def measure_stability(
    original: Classifier,
    cohort: Cohort,
    protocol: Protocol,
    run: Path,
    *,
    seeds: int,
    arch: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    progress: Progress | None = None,
) -> StabilityRecord:
    """Hardens again under the seeds after the protocol's, measures all on validation, and writes `stability.json`.

    Args:
        original: as loaded; not modified.
        cohort: of the run; its splits stay what they are.
        protocol: of the run.
        run: the run directory, hardened.
        seeds: how many in all, the released one included; 2 to 20.
        arch: as for `load_hardened`.
        device: such as `cpu` or `cuda:0`.
        precision: as for `harden`.
        progress: called with `stability`, models done and in all.

    Raises:
        RunError: the run was not hardened under this protocol, or a number of seeds that can't be.
        HardeningError: hardening under a seed collapsed beyond recovery.
        OutputError: the run directory can't be written to.
    """
    if not 2 <= seeds <= MOST_SEEDS:
        raise RunError(f"stability takes 2 to {MOST_SEEDS} seeds, the protocol's own included; got {seeds}")
    files = RunFiles(run)
    released = files.record("harden.json", HardenRecord)
    if released.protocol != protocol.digest or released.hardened != files.digest("hardened.safetensors"):
        raise RunError(f"{run.name} was hardened under another protocol, or its weights were replaced")
    guard = guarded(cohort.identifiers, (protocol.model_dump_json(), *cohort.classes))
    with guard, audited(run, "stability", protocol=protocol.digest, seeds=list(seeds_of(protocol, seeds))) as log:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        measure = _Measure(original, cohort, protocol, device)
        found = []
        for number, seed in enumerate(seeds_of(protocol, seeds)):
            if progress is not None:
                progress("stability", number, seeds)
            if number == 0:
                found.append(measure.outcome(load_hardened(run, arch=arch), released))
                continue
            with tempfile.TemporaryDirectory(prefix="medharden-") as folder:
                other = Path(folder) / "run"
                again = protocol.model_copy(update={"seed": seed})
                record = harden(original, cohort, again, other, device=device, precision=precision)
                found.append(measure.outcome(load_hardened(other, arch=arch), record))
        if progress is not None:
            progress("stability", seeds, seeds)
        record_of_all = StabilityRecord(
            protocol=protocol.digest,
            cohort=released.cohort,
            hardened=released.hardened,
            cases=measure.cases,
            attacked=measure.attacked,
            attack=recipe(_ATTACK, protocol.input_threat, protocol.seed),
            seeds=tuple(found),
            environment=describe_environment(device, torch.get_num_threads(), precision=precision),
            started=started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        digest = write_record(run / _FILE, record_of_all)
        log.append("stability.recorded", files={_FILE: digest})
        return record_of_all


class _Measure:
    """Composites against the original on the same validation cases, under the same attack."""

    def __init__(self, original: Classifier, cohort: Cohort, protocol: Protocol, device: str) -> None:
        places = cohort.indices("val")
        self._protocol, self._device = protocol, device
        self._inputs, self._labels = cohort.stream(places, device), cohort.labels(places).to(device)
        rows = stratified_sample(self._labels.cpu().numpy(), protocol.hardening.probe_cases, protocol.seed)
        self._sample = torch.as_tensor(rows, device=device)
        self.cases, self.attacked = len(self._labels), len(rows)
        view = DecisionView(copy.deepcopy(original).to(device), decision_bias(protocol, cohort.classes).to(device))
        with torch.no_grad():
            logits = logits_in_batches(view, self._inputs, protocol.hardening.batch_size)
        self._before = answered_rightly(logits, self._labels)

    def outcome(self, model: HardenedClassifier, record: HardenRecord) -> SeedOutcome:
        """One composite's."""
        size, model = self._protocol.hardening.batch_size, model.to(self._device)
        with torch.no_grad():
            assessed = [model.assess(part) for part in parts(self._inputs, size)]
        logits = torch.cat([a.logits for a in assessed]) + model.decision_bias
        referred = torch.cat([a.referred for a in assessed])
        after = answered_rightly(logits, self._labels)
        result = run_suite(
            model.decision_view(),
            select(self._inputs, self._sample),
            self._labels[self._sample],
            threat=self._protocol.input_threat,
            suite=(_ATTACK,),
            seed=self._protocol.seed,
            batch_size=size,
            device=self._device,
            reach=self._protocol.suite.moved_grades,
        )
        return SeedOutcome(
            seed=record.seed,
            released=record.seed == self._protocol.seed,
            weight=record.fusion.weight,
            best_epoch=record.branch.best_epoch,
            clean_correct=int(after.sum()),
            gained=int((after & ~self._before).sum()),
            lost=int((self._before & ~after).sum()),
            referred=int(referred.sum()),
            robust=sum(not name for name in result.won_by),
        )
