"""Whether the released clean path still is the original: both are loaded and answer the run's cases."""

from __future__ import annotations

from pathlib import Path

import torch

from medharden.audit import RunFiles, canonical_json, digest_bytes
from medharden.data import Cohort, load_cohort
from medharden.models import Classifier, load_classifier, load_hardened, logits_in_batches, state_digest
from medharden.record import HardenRecord, Progress
from medharden.sizes import MAX_DECODED
from medharden.verifying.outcome import CleanPath, Fault

__all__ = ["check_clean_path"]

_BATCH = 64


def check_clean_path(
    run: Path,
    model: Path,
    data: Path | None,
    *,
    arch: str | None = None,
    key: bytes | None = None,
    workers: int = 2,
    max_decoded: int = MAX_DECODED,
    progress: Progress | None = None,
) -> tuple[CleanPath, tuple[Fault, ...]]:
    """Loads the original's file and the run's weights and compares them, on the CPU, bit for bit.

    No label is looked at and no answer is kept, so this is no look at the test split.

    Args:
        run: the run directory.
        model: the original's file or bundle.
        data: the run's data; None compares the weights alone.
        arch: as for hardening, where the file does not name its architecture.
        key: secret of the pseudonyms; needed with data.
        workers: threads that read files.
        max_decoded: bytes of memory that reading one file may take.
        progress: called with `read` and `compare`.

    Raises:
        MedHardenError: model, data or run can't be loaded.
    """
    files = RunFiles(run)
    protocol, record = files.protocol(), files.record("harden.json", HardenRecord)
    released = load_hardened(run, arch=arch).clean_path
    several = protocol.task.multilabel
    original = load_classifier(
        model, arch=arch, spec=protocol.model, dims=protocol.input.dims, fed=protocol.input, multilabel=several
    )
    faults = []
    if original.record.file != record.original.file:
        faults.append(Fault("harden.json", "was made with another model file than the one given"))
    state = state_digest(released) == state_digest(original)
    if not state:
        faults.append(Fault("hardened.safetensors", "holds a clean path whose weights differ from the model given"))
    if data is None:
        return CleanPath(state, 0, state, 0.0), tuple(faults)
    cohort = load_cohort(data, protocol, key=key or b"", workers=workers, progress=progress, max_decoded=max_decoded)
    if digest_bytes(canonical_json(cohort.record) + b"\n") != files.digest("cohort.json"):
        faults.append(
            Fault("cohort.json", "was made with other data, or under another pseudonym key, than those given")
        )
    equal, difference = _compare(released, original, cohort, progress)
    if not equal:
        faults.append(
            Fault("hardened.safetensors", f"answers otherwise than the model given, by up to {difference:.3g}")
        )
    return CleanPath(state, len(cohort.cases), equal, difference), tuple(faults)


@torch.no_grad()
def _compare(
    released: Classifier, original: Classifier, cohort: Cohort, progress: Progress | None
) -> tuple[bool, float]:
    """Whether all logits are equal, and their largest absolute difference; equal batches for both."""
    equal, difference = True, 0.0
    total = len(cohort.cases)
    for start in range(0, total, _BATCH):
        inputs, _ = cohort.batch(range(start, min(start + _BATCH, total)))
        first, second = (logits_in_batches(m, inputs, _BATCH) for m in (released, original))
        equal = equal and torch.equal(first, second)
        difference = max(difference, float((first - second).abs().max()))
        if progress is not None:
            progress("compare", min(start + _BATCH, total), total)
    return equal, difference
