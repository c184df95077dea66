"""What a machine with a GPU does in a second, in under ten minutes: one table, and the same as JSON.

    python tests/benchmarks/gpu.py --out gpu.json
    python tests/benchmarks/gpu.py --device cpu --tiny      # tries every part, in some minutes
    python tests/benchmarks/gpu.py --device strict --tiny   # on the tests' device of pure Python

Decoding; an ordinary and a hardening step of each network in each precision (images a second, peak memory of the
device); the attack suite; a whole small run in fp32 and in bf16, whose verdicts are held against each other; a step
that `torch.compile` made; what `--device auto` takes. Images are drawn and networks start from nothing, so that
it needs no file. A part that the time left does not allow is left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from cohorts import PROTOCOL, peak, write_cases

KEY = b"measurements, no secret at all"
NETWORKS = ("resnet50", "densenet121", "vit_small_patch16_224", "convnext_tiny", "efficientnet_lite0")
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
_STEPS = 12


@dataclass(frozen=True)
class Row:
    """One line of the table; nothing stands for what does not apply."""

    what: str
    network: str = ""
    precision: str = ""
    rate: float | None = None
    memory: float | None = None
    said: str = ""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    side: int
    cases: int
    batch: int
    networks: tuple[str, ...]
    steps: int = _STEPS


FULL = Sizes(224, 600, 32, NETWORKS)
TINY = Sizes(32, 120, 8, ("test_resnet", "test_vit"), 4)


class Clock:
    """Time left of what was allowed."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return self._end - time.monotonic()


def protocol_of(side: int, batch: int) -> Any:
    from medharden.protocol import parse_protocol

    text = PROTOCOL.format(side=side).replace("batch_size: 32", f"batch_size: {batch}")
    return parse_protocol(text.replace("epochs: 2", "epochs: 3"), "gpu.yaml")


def classifier_of(name: str, cohort: Any, side: int) -> Any:
    """A network of timm that starts from nothing, with running statistics of the data."""
    from medharden.models import Classifier, Normaliser, timm_module

    torch.manual_seed(0)
    more = {"img_size": side} if "vit" in name else {}
    network = timm_module().create_model(name, num_classes=2, in_chans=1, **more)
    example, _ = cohort.batch(cohort.indices("train")[:4])
    scale = Normaliser(mean=(0.5,), std=(0.25,))
    return Classifier.from_module(
        network, example, classes=cohort.classes, normaliser=scale, arch=f"timm:{name}", arguments=more
    )


def reset(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def mebibytes(device: str) -> float:
    """Peak of the device since `reset`; of the process where that is no CUDA."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if torch.device(device).type == "cuda" else peak()


def decoding(data: Path, settings: Any, cases: int, work: Path) -> tuple[Any, list[Row]]:
    from medharden.data import load_cohort

    rows = []
    for what in ("decoding, checks and store, 2 readers", "a later command, from the store"):
        started = time.perf_counter()
        cohort = load_cohort(data, settings, key=KEY, cache=work / "cache")
        rows.append(Row(what, rate=cases / (time.perf_counter() - started)))
    return cohort, rows


def steps(name: str, precision: str, cohort: Any, settings: Any, device: str, sizes: Sizes) -> Iterator[Row]:
    """An ordinary step, and a hardening step, of one network in one precision."""
    from medharden.hardening.clean import step_seconds

    model, hardening = classifier_of(name, cohort, sizes.side), settings.hardening
    kind, lower = torch.device(device).type, PRECISIONS[precision]
    reset(device)
    with nullcontext() if lower is None else torch.autocast(kind, lower):
        clean = step_seconds(model, cohort, hardening, seed=0, device=device, most=sizes.steps)
    yield Row("an ordinary step", name, precision, hardening.batch_size / clean, mebibytes(device))
    training = training_of(model, precision, cohort, settings, device)
    reset(device)
    hardened = step_of(training)
    said = f"{hardened / clean:.2f} times"
    yield Row("a hardening step", name, precision, hardening.batch_size / hardened, mebibytes(device), said)


def training_of(model: Any, precision: str, cohort: Any, settings: Any, device: str) -> Any:
    import copy

    from medharden.hardening.branch import make_branch
    from medharden.hardening.probe import Probe
    from medharden.hardening.training import BranchTraining

    clean_path = copy.deepcopy(model).requires_grad_(False).to(device)
    branch = make_branch(clean_path, settings.hardening.branch, rank=settings.hardening.rank, seed=0)
    probe = Probe(clean_path, cohort, settings, torch.zeros(2, device=device), device)
    return BranchTraining(clean_path, branch, cohort, settings, probe, device, precision=precision)


def step_of(training: Any) -> float:
    taken = training.time_steps(20.0)
    return statistics.median(taken[1:] or taken)


def compiled(name: str, precision: str, cohort: Any, settings: Any, device: str, sizes: Sizes) -> Iterator[Row]:
    """A hardening step whose branch `torch.compile` made, against one that it did not, and what its first step took."""
    model = classifier_of(name, cohort, sizes.side)
    plain = step_of(training_of(model, precision, cohort, settings, device))
    training = training_of(model, precision, cohort, settings, device)
    training.branch.compile()
    first, *others = training.time_steps(300.0)
    made = statistics.median(others or [first])
    said = f"{made / plain:.2f} times one that is not compiled; its first took {first:.0f} s"
    yield Row("a hardening step, compiled", name, precision, settings.hardening.batch_size / made, None, said)


def suite(name: str, cohort: Any, settings: Any, device: str, sizes: Sizes) -> Row:
    """Three steps of PGD, as the suite runs them, on the test split."""
    from medharden.attacks import run_suite
    from medharden.models import DecisionView

    model = classifier_of(name, cohort, sizes.side).to(device)
    test = cohort.indices("test")
    inputs, labels = cohort.stream(test, device), cohort.labels(test).to(device)
    reset(device)
    started = time.perf_counter()
    run_suite(
        DecisionView(model, torch.zeros(2, device=device)), inputs, labels, threat=settings.input_threat,
        suite=settings.suite.attacks, seed=0, batch_size=sizes.batch, device=device,
    )  # fmt: skip
    return Row("the suite (PGD, 3 steps)", name, "fp32", len(test) / (time.perf_counter() - started), mebibytes(device))


def verdicts(cohort: Any, settings: Any, device: str, sizes: Sizes, work: Path) -> Iterator[Row]:
    """The same small run in both precisions: verdicts, and how far robust accuracy is apart."""
    from medharden.evaluating import evaluate
    from medharden.gating import gate
    from medharden.hardening import fine_tune, harden
    from medharden.models import load_hardened
    from medharden.protocol import Hardening

    name = "test_resnet"
    original = classifier_of(name, cohort, sizes.side)
    fine_tune(original, cohort, Hardening(epochs=2, min_steps=1, batch_size=sizes.batch), seed=0, device=device)
    found = {}
    for precision in precisions_of(device):
        run = work / f"run-{precision}"
        started = time.perf_counter()
        harden(original, cohort, settings, run, device=device, precision=precision)
        seen = evaluate(load_hardened(run), cohort, settings, run, original=original, device=device)
        released = {s.name: s for s in seen.subjects}["composite"]
        found[precision] = (gate(run).verdict.value, released.clean_accuracy, released.robust_accuracy)
        said = "{}, clean {:.3f}, attacked {:.3f}".format(*found[precision])
        said += f", {time.perf_counter() - started:.0f} s"
        yield Row("a whole small run", name, precision, None, mebibytes(device), said)
    if len(found) == 1:
        return
    (one, clean, robust), (other, clean_lower, robust_lower) = found.values()
    apart = f"apart by {abs(clean - clean_lower):.3f} clean, {abs(robust - robust_lower):.3f} attacked"
    yield Row("bf16 against fp32", name, said=("same verdict, " if one == other else "OTHER VERDICT, ") + apart)


def precisions_of(device: str) -> list[str]:
    """Those that the device can compute in; the one of pure Python has no autocast."""
    lower = torch.device(device).type in ("cpu", "cuda", "mps", "xpu")
    return [name for name in PRECISIONS if lower or name == "fp32"]


def measure(device: str, sizes: Sizes, work: Path, clock: Clock) -> Iterator[Row]:
    """Every part that the time allows, the quick ones first."""
    settings = protocol_of(sizes.side, sizes.batch)
    data = write_cases(work / f"data-{sizes.side}-{sizes.cases}", sizes.cases, sizes.side)
    cohort, rows = decoding(data, settings, sizes.cases, work)
    yield from rows
    slowest, precisions = 0.0, precisions_of(device)
    parts = [
        *(lambda n=n, p=p: steps(n, p, cohort, settings, device, sizes) for n in sizes.networks for p in precisions),
        *(lambda n=n: iter([suite(n, cohort, settings, device, sizes)]) for n in sizes.networks[:2]),
        lambda: verdicts(cohort, settings, device, sizes, work),
    ]
    if torch.device(device).type in ("cpu", "cuda"):
        parts += [lambda n=n: compiled(n, precisions[-1], cohort, settings, device, sizes) for n in sizes.networks[:2]]
    for number, part in enumerate(parts):
        if clock.left() < 1.5 * slowest:
            yield Row("left out", said=f"{len(parts) - number} parts: no time was left")
            return
        started = time.monotonic()
        yield from part()
        slowest = max(slowest, time.monotonic() - started)


def table(rows: list[Row]) -> str:
    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    lines = ["| What | Network | Precision | A second | Peak, MiB | |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.what} | {r.network} | {r.precision} | {shown(r.rate, '.4g')} | {shown(r.memory, '.0f')} | {r.said} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="", help="cuda, cpu or strict; without it what `--device auto` takes")
    parser.add_argument("--tiny", action="store_true", help="small networks and images, few steps")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--work", type=Path, default=Path(".bench/gpu"))
    parser.add_argument("--out", type=Path, default=None, help="file for the JSON")
    given = parser.parse_args()
    from medharden.cli.runtime import device_of

    taken = device_of("auto")
    if not given.device and taken == "cpu":
        print("no GPU is here: nothing was measured (`--device cpu --tiny` tries every part)")
        return
    if given.device == "strict":
        import strict_device  # noqa: F401 - registers it
    device = given.device or taken
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    if torch.device(device).type != "cuda":
        torch.set_num_threads(1)
    rows, started = [Row("--device auto takes", said=taken)], time.monotonic()
    for row in measure(device, TINY if given.tiny else FULL, given.work, Clock(60 * given.minutes)):
        rows.append(row)
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    print(table(rows))
    seconds = time.monotonic() - started
    print(f"\n{name}, torch {torch.__version__}, {seconds:.0f} s")
    if given.out is not None:
        said = {"device": name, "torch": torch.__version__, "numpy": np.__version__, "seconds": seconds}
        given.out.write_text(json.dumps(said | {"rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
