"""The attack suite: attacks in turn on the cases that still stand, every success checked by a fresh forward."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from medharden.attacks.criterion import Criterion, Objective, wrong_findings
from medharden.attacks.dispatch import dispatch, passes, recipe
from medharden.attacks.projections import within
from medharden.attacks.searching import searched, with_surrogate_slopes
from medharden.attacks.soundness import Signs, climbs, findings, look_like_probabilities, repeats, slopes_repeat
from medharden.attacks.state import Keep, SuiteState
from medharden.attacks.victim import Strongest, Victim, attackable, check_cases, refers
from medharden.errors import RangeError
from medharden.heap import give_back_freed_memory
from medharden.protocol import Attack, Precision, ThreatModel
from medharden.record import AttackOutcome, Finding, Progress
from medharden.rows import Cases

__all__ = ["SuiteResult", "run_suite"]

CLEAN = "clean"
_BEGUN_ANEW = Finding(
    "attack.begun_anew",
    "warning",
    "What an interrupted run of these attacks had left claimed successes that are none; all attacks ran anew.",
)


@dataclass(frozen=True)
class SuiteResult:
    """What a suite of attacks came to; rows as in the inputs.

    Attributes:
        adversarial: (N, C, *spatial) the strongest found: a success, or else the highest margin loss; equal to the
            inputs where the clean answer was already wrong.
        won_by: (N,) the attack that won, `clean` where the answer was wrong without any, "" where none won.
        outcomes: one an attack, in order; `cases` are those it was run on.
        findings: what a reader of the result must know.
        wrong: multi-label alone: (N, L) bool, which findings are wrong at `adversarial`. Where the suite sought `any`
            finding, that is a lower limit of what can be done to each: seek one by its index to know.
        signs: what was seen, which `findings` are made of.
    """

    adversarial: Cases
    won_by: tuple[str, ...]
    outcomes: tuple[AttackOutcome, ...]
    findings: tuple[Finding, ...]
    wrong: Tensor | None = None
    signs: Signs = field(default_factory=Signs)


@dataclass
class _Run:
    """A suite under way: what it is run on, and what was found so far."""

    model: nn.Module
    inputs: Cases
    criterion: Criterion
    threat: ThreatModel
    seed: int
    batch_size: int
    device: str
    precision: Precision
    state: SuiteState
    keep: Keep | None
    rivals: int = 0
    copies: tuple[nn.Module, ...] = ()
    numbers: Tensor | None = None

    def batches(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, self.batch_size) if len(rows) else ()

    def criterion_of(self, rows: Tensor) -> Criterion:
        criterion = self.criterion.of(rows)
        return replace(criterion, labels=criterion.labels.to(self.device))

    def victim(self, rows: Tensor, loss: str, model: nn.Module | None = None) -> Victim:
        return Victim(self.model if model is None else model, self.criterion_of(rows), loss, self.state.signs.tally)


def run_suite(
    model: nn.Module,
    inputs: Cases,
    labels: Tensor,
    *,
    threat: ThreatModel,
    suite: tuple[Attack, ...],
    seed: int,
    batch_size: int,
    finding: Objective = "any",
    device: str = "cpu",
    precision: Precision = "float32",
    progress: Progress | None = None,
    stage: str = "attack",
    saved: SuiteState | None = None,
    keep: Keep | None = None,
    numbers: Tensor | None = None,
    reach: int = 1,
) -> SuiteResult:
    """Runs attacks in order, each on the cases that none before it has won.

    Attacks search on a copy of the model in a faster memory layout; a success counts once a forward pass of the model
    itself confirms it at the final input, and where it does not, the model itself is searched too. Randomness is drawn
    from a generator for each (seed, place in the suite, row), so it depends neither on the batch size nor on the other
    cases; results then differ between batch sizes by floating-point rounding alone.

    Labels decide the task. Class indices (N,) integer: a case is won where the answer, the largest column, is wrong.
    Findings (N, L) floating point of 0 and 1: finding j is answered as present where column j is above 0, and a case is
    won where any finding, the named one, or every one is wrong; a case that is so without an attack is `clean`.

    Args:
        model: takes (N, C, *spatial) within the bounds and returns logits (N, K), K = L for findings; with a true
            attribute `refers`, (N, K + 1), the last meaning `referred to a human` (findings: where it is above 0). On
            `device`; left as it was, in every flag and buffer.
        inputs: (N, C, *spatial) floating point within `threat.bounds`, on any device; of cases that are read from a
            file, the points that are found lie in one too.
        labels: (N,) class indices, or (N, L) findings, beside the inputs.
        threat: norm, eps in input units, bounds.
        suite: the attacks.
        seed: of all random starts.
        batch_size: largest number of cases on the device at once.
        finding: which finding is sought: `any` (a case is robust if all stay right), the index of one (robust if that
            one stays right, whatever the others do), or `all` (robust if one of them stays right). Classes: `any`.
        device: where the model is and batches are moved.
        precision: of the search; `bfloat16` computes convolutions and matrix products in half the bits.
        progress: called at the start and after each batch with cases x gradients done, about, and in all if every case
            that still stands goes through all that is left; so the second falls as cases fall.
        stage: what `progress` is told this is.
        saved: how far an interrupted run of the same suite, model, cases, threat, seed and batch size came: it goes on
            from there, to the same result. Whoever hands it over answers for their being the same; each success in it
            is checked by a fresh forward pass all the same, and where one is none the suite begins anew, which is a
            finding.
        keep: called with the state after each batch.
        numbers: (N,) rows that the cases have among more, of which these are a part: their randomness is that of those.
        reach: of ordered grades, how many an attack must move the answer from the true one to win; a case whose clean
            answer is wrong by any is `clean` all the same.

    Raises:
        RangeError: inputs, labels or logits outside what is said above, or a batch size below 1.
    """
    check_cases(inputs, labels, threat, finding)
    if batch_size < 1:
        raise RangeError(f"batch_size must be at least 1, got {batch_size}")
    run = _Run(
        model=model,
        inputs=inputs.detach() if isinstance(inputs, Tensor) else inputs,
        criterion=Criterion(labels.detach(), finding, refers(model), reach=reach),
        threat=threat,
        seed=seed,
        batch_size=batch_size,
        device=device,
        precision=precision,
        state=saved or SuiteState.at_the_start(inputs),
        keep=keep,
        numbers=numbers,
    )
    run.state.check(inputs, len(suite))
    trained, doubtful = any(module.training for module in model.modules()), False
    with attackable(model) as held:
        if saved is not None and not _confirmed(run):
            run.state, doubtful = SuiteState.at_the_start(inputs), True
        state = run.state
        state.signs.trained = trained
        _answer_twice(run)
        if not state.looked:
            _answer_clean(run)
            _look_at_gradients(run, suite)
            state.looked = True
        run.copies = _copies(run)
        if progress:
            progress(stage, *_work(run, suite))
        for place in range(len(state.outcomes), len(suite)):
            _run_attack(run, place, suite, progress, stage)
        wrong = _wrong_findings(run)
    state.signs.moved = held.moved
    found = (*findings(state.signs), *((_BEGUN_ANEW,) if doubtful else ()))
    return SuiteResult(state.adversarial, tuple(state.won_by), tuple(state.outcomes), found, wrong, state.signs)


def _confirmed(run: _Run) -> bool:
    """Whether every success of a saved state is one: inside the threat, and of a wrong answer now."""
    state = run.state
    fallen = torch.tensor([row for row, name in enumerate(state.won_by) if name], dtype=torch.int64)
    for rows in run.batches(fallen):
        inputs, points = run.inputs[rows].to(run.device), state.adversarial[rows].to(run.device)
        victim = Victim(run.model, run.criterion_of(rows), "margin")
        logits = victim.logits(points)
        clean = torch.tensor([state.won_by[row] == CLEAN for row in rows.tolist()], device=logits.device)
        won = torch.where(clean, victim.criterion.exact.won(logits), victim.criterion.won(logits))
        if not bool(within(points, inputs, run.threat).all() and won.all()):
            return False
    return True


def _answer_twice(run: _Run) -> None:
    """Notes whether the same batch gets the same answer again, and how many other answers there are."""
    inputs = run.inputs[: run.batch_size].to(run.device)
    victim = run.victim(torch.arange(len(inputs)), "margin")
    logits = victim.logits(inputs)
    run.rivals = victim.criterion.rivals(logits, logits.shape[1]).shape[1]
    run.state.signs.repeatable = repeats(logits, victim.logits(inputs))


def _answer_clean(run: _Run) -> None:
    """Marks the cases whose clean answer is wrong, and notes every case's clean margin loss."""
    state, alike = run.state, not run.criterion.multilabel
    for rows in run.batches(torch.arange(len(run.inputs))):
        victim = run.victim(rows, "margin")
        logits = victim.logits(run.inputs[rows].to(run.device))
        state.margins[rows] = victim.criterion.margin(logits).to(state.margins)
        alike &= look_like_probabilities(logits)
        for row in rows[victim.criterion.exact.won(logits).cpu()].tolist():
            state.won_by[row] = CLEAN
    state.signs.probabilities = alike


def _look_at_gradients(run: _Run, suite: tuple[Attack, ...]) -> None:
    """Counts rightly answered cases whose clean gradient is none, or leads nowhere, under every loss of the suite."""
    state, signs = run.state, run.state.signs
    right = torch.tensor([not name for name in state.won_by])
    signs.looked_at = int(right.sum())
    if suite and signs.looked_at:
        rows = right.nonzero().squeeze(1)[: run.batch_size]
        signs.slopes_repeat = slopes_repeat(
            Victim(run.model, run.criterion_of(rows), "margin"), run.inputs[rows].to(run.device)
        )
    blind, misled = _without_a_way_up(run, run.model, right & bool(suite), suite)
    # Where there is no gradient nothing rises: the blind are among the misled, and are said to be blind.
    misled &= ~blind
    signs.misled = int(misled.sum())
    if run.criterion.labels.ndim == 1:
        labels = run.criterion.labels.cpu()
        each = {k: labels == k for k in sorted(set(labels.tolist()))}
        signs.of_class = {str(k): (int(misled[own].sum()), int(right[own].sum())) for k, own in each.items()}
    sloped = with_surrogate_slopes(run.model) if blind.any() else None
    still = blind if sloped is None else _without_a_way_up(run, sloped, blind, suite)[0]
    state.flat = (blind & ~still).nonzero().flatten().tolist()
    signs.blind, signs.flat = int(still.sum()), len(state.flat)


def _without_a_way_up(run: _Run, model: nn.Module, cases: Tensor, suite: tuple[Attack, ...]) -> tuple[Tensor, Tensor]:
    """(N,) which of some cases (N,) have no clean gradient, and which have none that raises a loss of the suite."""
    blind, misled = cases.clone(), cases.clone()
    for loss in dict.fromkeys(attack.loss for attack in suite):
        for rows in run.batches(misled.nonzero().squeeze(1)):
            none, rises = climbs(run.victim(rows, loss, model), run.inputs[rows].to(run.device), run.threat)
            blind[rows] &= none.cpu()
            misled[rows] &= ~rises.cpu()
    return blind, misled


def _copies(run: _Run) -> tuple[nn.Module, nn.Module]:
    """What to search on: a faster copy, and another for cases whose gradient needs surrogate slopes."""
    dims = run.inputs.dim() - 2
    on = searched(run.model, dims, run.precision)
    sloped = with_surrogate_slopes(run.model) if run.state.flat else None
    return on, on if sloped is None else searched(sloped, dims, run.precision)


def _run_attack(run: _Run, place: int, suite: tuple[Attack, ...], progress: Progress | None, stage: str) -> None:
    """Runs one attack on the cases that stand, or on those of them that an interrupted run had left."""
    state, attack, flat_rows = run.state, suite[place], set(run.state.flat)
    if state.left is None:
        state.left = state.standing
        state.attacked, state.wins, state.seconds = len(state.left), 0, 0.0
    while state.left:
        started, flat = time.perf_counter(), state.left[0] in flat_rows
        batch = [row for row in state.left if (row in flat_rows) == flat][: run.batch_size]
        attacked = set(batch)
        wins = _attack_batch(run, run.copies[int(flat)], place, attack, torch.tensor(batch))
        state.left, state.wins = [row for row in state.left if row not in attacked], state.wins + wins
        state.seconds += time.perf_counter() - started
        if run.keep:
            run.keep(state)
        if progress:
            progress(stage, *_work(run, suite))
    if attack.attack == "square" and place > 0:
        state.signs.black_box = (state.attacked, state.wins)
    state.outcomes.append(
        AttackOutcome(attack.name, recipe(attack, run.threat, run.seed), state.attacked, state.wins, state.seconds)
    )
    state.left = None


def _work(run: _Run, suite: tuple[Attack, ...]) -> tuple[int, int]:
    """Cases x gradients done, and in all if what stands withstands the rest; the look at each case is one of them."""
    state, costs = run.state, [passes(attack, run.rivals) for attack in suite]
    now = len(state.outcomes)
    done = len(run.inputs) + sum(o.cases * cost for o, cost in zip(state.outcomes, costs, strict=False))
    ahead = len(state.standing) * sum(costs[now:])
    if state.left is not None:
        done += (state.attacked - len(state.left)) * costs[now]
        ahead = len(state.left) * costs[now] + len(state.standing) * sum(costs[now + 1 :])
    return done, done + ahead


def _attack_batch(run: _Run, on: nn.Module, place: int, attack: Attack, rows: Tensor) -> int:
    """Attacks one batch; keeps each case's strongest point and returns how many successes were confirmed."""
    give_back_freed_memory()
    inputs, victim = run.inputs[rows].to(run.device), run.victim(rows, attack.loss)
    best = _strike(run, on, place, attack, rows)
    logits = victim.logits(best.points)
    missed = best.fallen & ~victim.criterion.won(logits)
    if on is not run.model and bool(missed.any()):
        # What the copy's rounding alone let fall is sought on the model itself.
        again = _strike(run, run.model, place, attack, rows[missed.cpu()])
        best.points[missed], best.fallen[missed] = again.points, again.fallen
        logits = victim.logits(best.points)
    # A point outside the threat would be a mistake of ours; leaving it uncounted would flatter the model.
    assert bool(within(best.points, inputs, run.threat).all()), "an attack left the threat model"  # noqa: S101
    won, margins = victim.criterion.won(logits), victim.criterion.margin(logits).to(run.state.margins)
    state = run.state
    state.signs.refuted += int((best.fallen & ~won).sum())
    stronger = won.cpu() | (margins > state.margins[rows])
    points = state.adversarial
    points[rows[stronger]] = best.points[stronger.to(best.points.device)].to(points.device, points.dtype)
    state.margins[rows[stronger]] = margins[stronger]
    for row in rows[won.cpu()].tolist():
        state.won_by[row] = attack.name
    return int(won.sum())


def _strike(run: _Run, on: nn.Module, place: int, attack: Attack, rows: Tensor) -> Strongest:
    """One attack on some cases, searched on a model or a copy of it."""
    numbers = rows if run.numbers is None else run.numbers[rows]
    generators = [_generator(run.seed, place, number) for number in numbers.tolist()]
    return dispatch(run.victim(rows, attack.loss, on), run.inputs[rows].to(run.device), generators, run.threat, attack)


def _wrong_findings(run: _Run) -> Tensor | None:
    """(N, L) which findings are wrong at the strongest points; null for classes."""
    if not run.criterion.multilabel:
        return None
    found = []
    for rows in run.batches(torch.arange(len(run.inputs))):
        criterion = run.criterion_of(rows)
        logits = run.victim(rows, "margin").logits(run.state.adversarial[rows].to(run.device))
        found.append(wrong_findings(logits[:, : criterion.labels.shape[1]], criterion.labels).cpu())
    return torch.cat(found)


def _generator(seed: int, place: int, row: int) -> torch.Generator:
    """A case's own randomness: seeded by SHA-256 of the suite's seed, the attack's place and the row."""
    digest = hashlib.sha256(f"{seed}/{place}/{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
