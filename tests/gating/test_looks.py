"""What is a look at the test split: counted before anything can be read, once, and whatever came of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gating_factory as factory
import numpy as np
import pytest
import torch
from tiny import ARCH, EACH_CASE, KEY, tiny_model, write_archive

from medharden.audit import AuditLog, RunHistory, digest_file, read_history, read_ledger, read_log
from medharden.data import Cohort, load_cohort
from medharden.errors import MedHardenError, OutputError, RunError
from medharden.evaluating import evaluate
from medharden.gating import gate
from medharden.hardening import harden
from medharden.models import Classifier, load_classifier, load_hardened
from medharden.protocol import Protocol, parse_protocol
from medharden.record import Evaluation, Verdict
from medharden.stats import noninferiority_test

OPENED = "evaluate.test_split_opened"
ASKED = {"protocol": "1" * 64, "cohort": "2" * 64, "hardened": "3" * 64}
READABLE = ("cases.parquet", "evaluation.json", "examples.safetensors")
TEXT = (
    """
schema_version: 1
name: looks
title: Looks
intended_use: Tests.
threat: {eps: 0.06}
hardening: {branch: norm, epochs: 1, min_steps: 1, batch_size: 25, probe_steps: 1, probe_cases: 8}
suite: {attacks: [{attack: pgd, loss: margin, steps: 2}], cases: 12, sanity_cases: 2, reason: Tests are quick.}
endpoints: {looks: LOOKS}
"""
    + EACH_CASE
)


def rules(looks: int = 1, seed: int = 1) -> Protocol:
    return parse_protocol(TEXT.replace("LOOKS", str(looks)) + f"seed: {seed}\n", "looks.yaml")


class Shop:
    """One model and one cohort, hardened runs of it, and what an evaluation leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        archive = write_archive(folder / "tiny.npz", sizes=(60, 30, 40))
        self.original: Classifier = tiny_model(folder)
        self.cohort: Cohort = load_cohort(archive, rules(), key=KEY)

    def run(self, name: str, protocol: Protocol, original: Classifier | None = None) -> Path:
        harden(original or self.original, self.cohort, protocol, self.folder / name)
        return self.folder / name

    def evaluate(self, run: Path, protocol: Protocol, **more: object) -> Evaluation:
        fixed = {"original": self.original, "with_examples": True} | more
        return evaluate(load_hardened(run, arch=ARCH), self.cohort, protocol, run, **fixed)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, Path]:
    shop = Shop(tmp_path_factory.mktemp("looks"))
    return shop, shop.run("run", rules())


@pytest.fixture
def shop(made: tuple[Shop, Path]) -> Shop:
    return made[0]


@pytest.fixture
def run(made: tuple[Shop, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "run"))


def stop_at(stage: str) -> Callable[[str, int, int], None]:
    def stop(now: str, done: int, total: int) -> None:
        if now == stage:
            raise KeyboardInterrupt

    return stop


# --- counted before anything can be read -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*READABLE, "evaluate.composite.partial"])
def test_a_folder_in_the_place_of_a_file_stops_before_the_test_split_is_opened(
    shop: Shop, run: Path, name: str
) -> None:
    (run / name).mkdir()
    with pytest.raises(OutputError, match=rf"folder in the place of {name}.*the test split was not opened"):
        shop.evaluate(run, rules(), ledger=run.parent / "looks.jsonl")
    assert read_history(run).opened == 0
    assert not (run.parent / "looks.jsonl").exists()
    assert not [n for n in READABLE if (run / n).is_file()]


@pytest.mark.parametrize("name", READABLE)
def test_a_look_whose_results_could_be_read_is_counted_though_writing_them_failed(
    shop: Shop, run: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = run.parent / "looks.jsonl"

    def full(*_: object) -> str:
        raise OutputError("no space left")

    writer = {"cases.parquet": "write_cases", "evaluation.json": "write_record"}.get(name, "write_atomic")
    with monkeypatch.context() as patch:
        patch.setattr(f"medharden.evaluating.run.{writer}", full)
        with pytest.raises(OutputError):
            shop.evaluate(run, rules(), ledger=ledger)
    history = read_history(run)
    assert (history.looks, history.finished, len(history.unfinished)) == (1, 0, 1)
    [look] = read_ledger(ledger, key_id=shop.cohort.record.key_id).looks
    assert look.look == history.unfinished[0].look
    other = shop.run(f"other {name}", rules(seed=2))
    with pytest.raises(RunError, match="holds 1 looks at images of this test split"):
        shop.evaluate(other, rules(seed=2), ledger=ledger)
    assert read_history(other).opened == 0


def test_the_log_and_the_ledger_hold_the_look_before_the_first_case_is_answered(
    shop: Shop, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, seen = run.parent / "looks.jsonl", []

    def answer(*_: object) -> None:
        seen.append((read_history(run).looks, len(read_ledger(ledger, key_id=shop.cohort.record.key_id).looks)))
        raise MedHardenError("stop")

    monkeypatch.setattr(Cohort, "stream", answer)
    with pytest.raises(MedHardenError, match="stop"):
        shop.evaluate(run, rules(), ledger=ledger)
    assert seen == [(1, 1)]


@pytest.mark.parametrize("what", ["a folder", "no ledger", "a lock that is a folder"])
def test_where_a_look_can_not_be_counted_nothing_is_opened(
    shop: Shop, run: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = run.parent / "looks.jsonl"
    (run.parent / ("looks.jsonl.lock" if "lock" in what else "looks.jsonl")).mkdir()
    if what == "no ledger":
        ledger.rmdir()
        AuditLog(ledger).append("harden.started")
    monkeypatch.setattr(Cohort, "stream", lambda *_: pytest.fail("the test split was read"))
    with pytest.raises(MedHardenError):
        shop.evaluate(run, rules(), ledger=ledger)
    assert not [n for n in READABLE if (run / n).is_file()]


def test_a_device_that_is_not_there_costs_no_look(shop: Shop, run: Path) -> None:
    with pytest.raises((RuntimeError, AssertionError)):
        shop.evaluate(run, rules(), device="cuda:77")
    assert read_history(run).opened == 0


# --- the same look ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["attack original", "attack release", "sanity curves"])
def test_an_evaluation_that_was_interrupted_and_gone_on_with_is_one_look(shop: Shop, run: Path, stage: str) -> None:
    ledger = run.parent / "looks.jsonl"
    for smaller in (64, 16):  # as after memory ran out
        with pytest.raises(KeyboardInterrupt):
            shop.evaluate(run, rules(), ledger=ledger, progress=stop_at(stage), batch_size=smaller)
    shop.evaluate(run, rules(), ledger=ledger, batch_size=16)
    history = read_history(run)
    assert (history.opened, history.looks, history.finished, history.unfinished) == (3, 1, 1, ())
    [look] = read_ledger(ledger, key_id=shop.cohort.record.key_id).looks
    assert look.look == history.look
    decision = gate(run, ledger=ledger)
    assert decision.verdict is not Verdict.INVALID
    assert "gate.resumed_look" in {f.code for f in decision.findings}
    assert not {"gate.unfinished_look", "gate.repeated_look"} & {f.code for f in decision.findings}
    with pytest.raises(RunError, match=r"looked at 1 times, and .* allows 1.*The finished evaluation stands"):
        shop.evaluate(run, rules(), ledger=ledger)


def test_other_weights_after_an_interrupt_are_another_look(shop: Shop, run: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        shop.evaluate(run, rules(), progress=stop_at("attack release"))
    assert list(run.glob("evaluate.*.partial")), "what can be read of an interrupted look"
    other = shop.run("elsewhere", rules(seed=3))
    for name in ("hardened.safetensors", "hardened.json", "harden.json", "protocol.yaml"):
        shutil.copy(other / name, run / name)
    with pytest.raises(RunError, match=r"looked at 1 times \(1 of them came to no record\)"):
        shop.evaluate(run, rules(seed=3))


def test_a_look_that_was_opened_before_the_ledger_was_named_gets_into_it(shop: Shop, run: Path) -> None:
    ledger = run.parent / "looks.jsonl"
    with pytest.raises(KeyboardInterrupt):
        shop.evaluate(run, rules(), progress=stop_at("attack original"))
    shop.evaluate(run, rules(), ledger=ledger)
    assert gate(run, ledger=ledger).verdict is not Verdict.INVALID
    assert read_history(run).looks == 1


# --- whatever the model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["one weight of the original", "another original", "another seed", "fewer images"])
def test_any_model_on_images_that_were_looked_at_is_another_look(
    shop: Shop, run: Path, change: str, tmp_path: Path
) -> None:
    ledger, protocol = tmp_path / "looks.jsonl", rules(seed=2 if change == "another seed" else 1)
    shop.evaluate(run, rules(), ledger=ledger)
    (tmp_path / "new").mkdir()
    there = Shop(tmp_path / "new")
    if change == "fewer images":
        arrays = dict(np.load(there.folder / "tiny.npz"))
        kept = {k: v[:-20] if k.startswith("test") else v for k, v in arrays.items()}
        np.savez(there.folder / "fewer.npz", **kept)
        there.cohort = load_cohort(there.folder / "fewer.npz", rules(), key=KEY)
    with torch.no_grad():
        first = next(there.original.network.parameters())
        if change == "one weight of the original":
            first.view(-1)[0] += 1e-6
        elif change == "another original":
            first.mul_(-1)
    torch.save(there.original.network.state_dict(), there.folder / "changed.pt")
    there.original = load_classifier(there.folder / "changed.pt", arch=ARCH)
    if "original" in change:
        assert there.original.record.state != shop.original.record.state
    again = there.run("again", protocol)
    with pytest.raises(RunError, match="holds 1 looks at images of this test split"):
        there.evaluate(again, protocol, ledger=ledger)
    assert read_history(again).opened == 0
    assert not [n for n in READABLE if (again / n).is_file()]


# --- what a log says ----------------------------------------------------------------------------------------------


def history(path: Path, *events: object) -> RunHistory:
    """Of a log with these events: the digests of what a look asked, or null for an evaluation that was recorded."""
    log = AuditLog(path / "audit.jsonl")
    for event in events:
        if event is None:
            log.append("evaluate.recorded", cases="", record="e" * 64)
        else:
            log.append(OPENED, cases=4, **(ASKED | event))  # type: ignore[operator]
    return read_history(path)


A, B = {}, {"hardened": "4" * 64}


@pytest.mark.parametrize(
    ("events", "looks", "finished", "unfinished"),
    [
        ((), 0, 0, 0),
        ((A,), 1, 0, 1),
        ((A, A, A), 1, 0, 1),
        ((A, None), 1, 1, 0),
        ((A, A, None), 1, 1, 0),
        ((A, None, A), 2, 1, 1),
        ((A, None, A, None), 2, 2, 0),
        ((A, B), 2, 0, 2),
        ((A, B, A), 2, 0, 2),
        ((A, B, A, None), 2, 1, 1),
        ((A, B, None, A), 2, 1, 1),
        ((A, {"protocol": "5" * 64}, {"cohort": "6" * 64}), 3, 0, 3),
        ((None,), 1, 1, 0),
        ((A, None, None), 2, 2, 0),
    ],
)
def test_looks_are_counted_by_what_was_asked(
    tmp_path: Path, events: tuple[object, ...], looks: int, finished: int, unfinished: int
) -> None:
    found = history(tmp_path, *events)
    assert (found.looks, found.finished, len(found.unfinished)) == (looks, finished, unfinished)
    assert found.opened == sum(e is not None for e in events)


def test_a_look_is_named_by_the_first_line_that_opened_it(tmp_path: Path) -> None:
    found = history(tmp_path, A, B, A, None)
    lines = [entry.line for entry in read_log(tmp_path).entries]
    assert found.look == lines[0]
    assert [(look.look, look.hardened) for look in found.unfinished] == [(lines[1], "4" * 64)]
    assert history(tmp_path, None).look == ""


def test_an_opening_that_does_not_say_what_was_asked_is_an_error(tmp_path: Path) -> None:
    AuditLog(tmp_path / "audit.jsonl").append(OPENED, cases=4)
    with pytest.raises(RunError, match="holds an event that lacks 'protocol'"):
        read_history(tmp_path)


def test_an_evaluation_that_is_not_on_record_is_not_taken_for_a_finished_one(shop: Shop, run: Path) -> None:
    from medharden.cli.pipeline import Job, _evaluate

    shop.evaluate(run, rules())
    lines = (run / "audit.jsonl").read_bytes().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if json.loads(line)["event"] == "evaluate.recorded")
    (run / "audit.jsonl").write_bytes(b"".join(lines[:at]))
    job = Job(Path(), Path(), "", run, ARCH, "cpu", 64, 1, None, False, None, 2**30)
    _evaluate(job, shop.original, shop.cohort, rules(), lambda *_: None)
    found = read_history(run)
    assert (found.looks, found.finished) == (1, 1)
    assert found.evaluation == digest_file(run / "evaluation.json")


# --- alpha is spent over the looks --------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [1, 2, 4, 20])
@pytest.mark.parametrize("multiplicity", ["all", "any-holm"])
def test_every_endpoint_is_decided_at_the_alpha_that_is_left_to_one_look(looks: int, multiplicity: str) -> None:
    wanted = factory.protocol(
        looks=looks, mode="guarded", more=(("auroc", 0.1), ("brier", 0.1)), multiplicity=multiplicity, columns=("sex",)
    )
    text = wanted.model_dump(mode="json")
    for margin in text["endpoints"]["noninferiority"]:
        margin["floor"] = 0.5 if margin["metric"] in ("accuracy", "recall", "auroc") else None
    rows = factory.records(rules=Protocol.model_validate_json(json.dumps(text)))
    made = replace(rows, cases=replace(rows.cases, groups={"sex": ("F", "M") * 200}))
    decision = made.decide()
    levels = {e.name: e.level for e in (*decision.endpoints, *decision.subgroups) if e.kind != "identity"}
    assert {"accuracy", "sensitivity", "auroc", "robust_floor", "robust_gain", "referral", "sex=F"} <= set(levels)
    for name, level in levels.items():
        tried = (1.0, 2.0) if multiplicity == "any-holm" and name in ("auroc", "brier") else (1.0,)
        assert any(level == pytest.approx(1 - 0.05 / looks / m) for m in tried), name


def test_the_first_of_many_planned_looks_passes_no_more_easily_than_the_last() -> None:
    """230 cases, none lost, show a margin of .02 at one look (189 would), and not at the first of four."""
    one = factory.records(230, rules=factory.protocol())
    assert one.decide().verdict is Verdict.PASS
    four = factory.records(230, rules=factory.protocol(looks=4))
    decision = four.decide()
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert any("lower 98.75 % limit" in reason for reason in decision.reasons)


def test_twenty_looks_do_not_pass_with_a_chance_of_a_half() -> None:
    """At the margin itself, the best of twenty looks passes no more often than alpha allows."""
    draw = np.random.default_rng(3)
    n, psi, margin = 400, 0.06, 0.05
    passes, alpha = 0, factory.protocol(looks=20).endpoints.alpha_per_look
    for _ in range(40):
        for _ in range(20):
            lost, gained = draw.multinomial(n, [(psi + margin) / 2, (psi - margin) / 2, 1 - psi])[:2]
            flags = np.arange(n)
            before, after = flags >= gained, (flags < gained) | (flags >= gained + lost)
            test = noninferiority_test(
                ~before & after, before & ~after, margin=margin, alpha=alpha,
                patients=list(map(str, flags)),
            )  # fmt: skip
            if test.shown:
                passes += 1
                break
    assert passes <= 4
