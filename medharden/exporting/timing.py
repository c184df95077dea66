"""What an answer costs in PyTorch and in each exported form: of the original, the branch and the composite."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from medharden.errors import RunError
from medharden.exporting.forms import PAIRED, onnx_bytes, opened_program, opened_script, program_bytes, script_bytes
from medharden.exporting.graph import deployed
from medharden.exporting.quantising import to_int8
from medharden.models import HardenedClassifier, open_onnx
from medharden.record import Progress

__all__ = ["TIMED", "Timing", "rounds", "time_forms", "timed_form"]

TIMED = ("pytorch", "onnx", "onnx int8", "pt2", "torchscript")
_MODES = {"original": "clean", "robust_branch": "robust", "composite": ""}
_LEAST_SECONDS, _LEAST_ROUNDS, _MOST_ROUNDS = 0.6, 5, 60


@dataclass(frozen=True)
class Timing:
    """One model in one form, at one batch size.

    Attributes:
        form: one of `TIMED`.
        model: `original`, `robust_branch` or `composite`.
        batch: cases a pass.
        seconds: median of a pass.
        ratio: the same over the original's in the same form: the median over rounds in which both took turns.
        bytes: of the file; of PyTorch the weights and buffers that the graph holds, shared ones once.
    """

    form: str
    model: str
    batch: int
    seconds: float
    ratio: float
    bytes: int

    @property
    def rate(self) -> float:
        """Cases a second."""
        return self.batch / self.seconds


def time_forms(
    model: HardenedClassifier,
    *,
    forms: Sequence[str] = TIMED,
    batches: Sequence[int] = (1, 16),
    progress: Progress | None = None,
) -> tuple[Timing, ...]:
    """Makes every form in memory and times it on the CPU, at the number of threads that PyTorch is set to.

    The three models take turns, so that what else the machine does falls on all alike.

    Args:
        model: the composite.
        forms: which of `TIMED`.
        batches: cases a pass.
        progress: called with `time`, forms done and in all.

    Raises:
        RunError: the model doesn't know its input.
        ModelError: a form can't be made.
    """
    if model.contract is None:
        raise RunError("hardened.json doesn't say what the model takes: harden again with this version")
    shape, found = model.contract.shape, []
    for done, form in enumerate(forms):
        if progress is not None:
            progress("time", done, len(forms))
        made = {name: timed_form(model, form, mode=mode) for name, mode in _MODES.items()}
        for batch in batches:
            inputs = torch.rand((batch, *shape), generator=torch.Generator().manual_seed(batch))
            taken = rounds({name: run for name, (run, _) in made.items()}, inputs)
            for name, seconds in taken.items():
                ratios = [one / other for one, other in zip(seconds, taken["original"], strict=True)]
                found.append(
                    Timing(form, name, batch, statistics.median(seconds), statistics.median(ratios), made[name][1])
                )
    if progress is not None:
        progress("time", len(forms), len(forms))
    return tuple(found)


def timed_form(model: HardenedClassifier, form: str, *, mode: str = "") -> tuple[Callable[[torch.Tensor], object], int]:
    """A form to be run as it is timed, and its size in bytes.

    What depends on weights alone is computed once, when it is loaded: by ONNX Runtime and TorchScript of themselves, in
    a program by `fold_constants`; TorchScript is frozen too.

    Args:
        model: the composite, which knows its input.
        form: one of `TIMED`.
        mode: of fusion, in the place of the model's own.

    Raises:
        RunError: the model doesn't know its input.
        ModelError: the form can't be made.
    """
    if model.contract is None:
        raise RunError("hardened.json doesn't say what the model takes: harden again with this version")
    graph = deployed(model, mode=mode, paired=form in PAIRED, shared=form != "pytorch")
    shape = model.contract.shape
    if form == "pytorch":
        held = {id(t): t.numel() * t.element_size() for t in [*graph.parameters(), *graph.buffers()]}
        return graph, sum(held.values())
    if form == "pt2":
        data = program_bytes(graph, shape, {})
        return opened_program(data, folded=True), len(data)
    if form == "torchscript":
        data = script_bytes(graph, shape, {})
        return opened_script(data, frozen=True), len(data)
    data = onnx_bytes(graph, shape, {})
    data = to_int8(data) if form == "onnx int8" else data
    return open_onnx(data, form), len(data)


@torch.no_grad()
def rounds(
    runs: dict[str, Callable[[torch.Tensor], object]],
    inputs: torch.Tensor,
    clock: Callable[[], float] = time.perf_counter,
    least: float = _LEAST_SECONDS,
) -> dict[str, list[float]]:
    """Seconds of each in turn; the first passes, in which runtimes prepare, count not.

    Args:
        runs: models by name.
        inputs: (N, C, *spatial) that all answer.
        clock: gives seconds.
        least: seconds of each model, in five rounds or more and 60 at most.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(inputs)
        run(inputs)
    started = clock()
    for number in range(_MOST_ROUNDS):
        for name, run in runs.items():
            before = clock()
            run(inputs)
            taken[name].append(clock() - before)
        if number + 1 >= _LEAST_ROUNDS and clock() - started > least * len(runs):
            break
    return taken
