"""A small run that is killed (`SIGKILL`) at drawn moments of every stage and called again until it ends.

`python tests/helpers/killed.py FOLDER --kills 5` prints as JSON what the kills came to. The process that kills has all
libraries loaded and forks, so that a kill costs no start; its own state is in FOLDER, and it goes on from there too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiny import ARCH, KEY, PROTOCOL, tiny_model, write_archive

from medharden.audit import RunFiles, verify_log
from medharden.data import load_cohort
from medharden.evaluating import evaluate
from medharden.gating import gate
from medharden.hardening import harden
from medharden.models import load_classifier, load_hardened
from medharden.protocol import parse_protocol
from medharden.verifying import verify

STAGES = ("read", "harden", "calibrate", "attack original", "attack branch", "attack release", "sanity curves")
SETTINGS = "epochs: 4, shift: 1, photometric: 0.1, clean_share: 0.2, teacher: {weight: 0.2}"
_LONGEST = 0.04  # seconds between what a stage says and the kill


@dataclass
class Toll:
    """What the kills came to so far.

    Attributes:
        kills: by the stage that was under way.
        begun: how many runs came to their end, killed or not.
        runs: how many runs came to their end after at least one kill.
        alike: of these, how many ended in the weights, answers and verdict of the run that nobody killed.
        wrong: what was found otherwise.
        under_way: kills of the run that has not ended yet.
    """

    kills: dict[str, int] = field(default_factory=dict)
    begun: int = 0
    runs: int = 0
    alike: int = 0
    wrong: list[str] = field(default_factory=list)
    under_way: int = 0


def prepare(folder: Path, cases: tuple[int, int, int]) -> None:
    """A model, a protocol, and a folder of pictures below train, val and test."""
    if (folder / "tiny.yaml").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(write_archive(folder / "tiny.npz", sizes=cases)) as arrays:
        for split in ("train", "val", "test"):
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel()
            for n, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = folder / "data" / split / "ab"[label] / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    tiny_model(folder)
    (folder / "tiny.yaml").write_text(PROTOCOL.replace("epochs: 20", SETTINGS))


def work(folder: Path, run: Path, progress: Callable[[str, int, int], None]) -> None:
    """Decoding into a cache of its own, training, calibration, evaluation, the verdict; each from where it was left."""
    protocol = parse_protocol((folder / "tiny.yaml").read_text(), "tiny.yaml")
    cohort = load_cohort(folder / "data", protocol, key=KEY, cache=run.with_suffix(".cache"), progress=progress)
    original = load_classifier(folder / "model.pt", arch=ARCH)
    if not (run / "harden.json").exists():
        harden(original, cohort, protocol, run, checkpoint_minutes=0, progress=progress)
    if not (run / "evaluation.json").exists():
        evaluate(load_hardened(run, arch=ARCH), cohort, protocol, run, original=original, progress=progress)
    gate(run)


def attempt(folder: Path, run: Path, moment: tuple[str, int, float] | None) -> str:
    """One process that does the work, killed so long after a stage spoke so often; the stage, "" where it ended."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        try:
            work(folder, run, lambda stage, done, total: os.write(sink, f"{stage}\n".encode()) and None)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(9)
    os.close(sink)
    heard = 0
    with os.fdopen(source) as said:
        for line in said:
            heard += moment is not None and line.strip() == moment[0]
            if moment is not None and heard == moment[1]:
                time.sleep(moment[2])
                os.kill(child, signal.SIGKILL)
                break
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and moment is not None:
        return moment[0]
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"an attempt failed by itself, killed or not: {moment}")
    return ""


def outcome(run: Path) -> dict[str, Any]:
    """The weights, who was right, what beat whom, the verdict; and that log and records hang together."""
    verify_log(run / "audit.jsonl")
    assert not verify(run).faults, "the run is not whole"
    files = RunFiles(run)
    seen = {
        name: [s.predicted.tolist(), list(s.won_by), np.asarray(s.probabilities).tobytes().hex()]
        for name, s in files.cases().subjects.items()
    }
    decision = json.loads((run / "gate.json").read_text())
    return {"weights": files.digest("hardened.safetensors"), "seen": seen, "verdict": decision["verdict"]}


def kill_often(folder: Path, kills: int, cases: tuple[int, int, int], seed: int = 0) -> Toll:
    """Kills until there were so many, and lets each run come to its end."""
    prepare(folder, cases)
    memory = folder / "toll.json"
    toll = Toll(**json.loads(memory.read_text())) if memory.exists() else Toll()
    plain = folder / "plain"
    attempt(folder, plain, None)  # which ends at once where it was done before
    wanted, events = outcome(plain), _said(folder)
    draws = random.Random(seed + sum(toll.kills.values()))
    while (done := sum(toll.kills.values())) < kills or toll.under_way:
        run = folder / f"run{toll.begun}"
        stage = draws.choice(STAGES)
        moment = (stage, draws.randint(1, events[stage]), draws.uniform(0, _LONGEST))
        killed = attempt(folder, run, moment if done < kills else None)
        if killed:
            toll.kills[killed] = toll.kills.get(killed, 0) + 1
            toll.under_way += 1
        elif toll.under_way:
            found = outcome(run)
            differing = [name for name in wanted if wanted[name] != found[name]]
            toll.wrong += [f"run {toll.begun}: {', '.join(differing)}"] if differing else []
            toll.alike += not differing
            toll.runs, toll.begun, toll.under_way = toll.runs + 1, toll.begun + 1, 0
        else:  # the stage was over before it was to be killed, and there was none before
            toll.begun += 1
        beside = memory.with_suffix(".new")
        beside.write_text(json.dumps(asdict(toll)))
        beside.replace(memory)
    return toll


def _said(folder: Path) -> Counter[str]:
    """How often each stage speaks in a run that nobody kills."""
    memory, counted = folder / "events.json", folder / "counted"
    if not memory.exists():
        heard: Counter[str] = Counter()
        source, sink = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(source)
            work(folder, counted, lambda stage, done, total: os.write(sink, f"{stage}\n".encode()) and None)
            os._exit(0)
        os.close(sink)
        with os.fdopen(source) as said:
            heard.update(line.strip() for line in said)
        os.waitpid(child, 0)
        memory.write_text(json.dumps(heard))
    return Counter(json.loads(memory.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--cases", type=int, nargs=3, default=(100, 40, 30))
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    toll = kill_often(given.folder, given.kills, tuple(given.cases))
    print(json.dumps(asdict(toll) | {"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
