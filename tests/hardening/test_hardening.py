"""The robust branch: its adversary, its training, its calibration, and that the clean path does not move."""

from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_networks import SeveralAnswers
from tiny import at, tiny_cohort, tiny_model, tiny_protocol

from medharden.audit import read_record
from medharden.data import Cohort
from medharden.data.store.inputs import Inputs
from medharden.errors import HardeningError, ModelError, RunError
from medharden.hardening import harden
from medharden.hardening.adversary import CarriedAdversary
from medharden.hardening.allotting import Account, Allotment
from medharden.hardening.augmentation import Changes, augment
from medharden.hardening.baselines import FreshAdversary
from medharden.hardening.branch import check_form, classifier_layer, make_branch, merge
from medharden.hardening.calibration import calibrate, fit_temperature
from medharden.hardening.perturbations import PerturbationFiles, TwoFiles
from medharden.hardening.probe import Probe, ProbeResult, collapsed
from medharden.hardening.run import decision_bias
from medharden.hardening.schedule import learning_rate, radius_share
from medharden.hardening.training import BranchTraining
from medharden.models import Classifier, load_classifier, load_hardened, state_digest
from medharden.protocol import Hardening, ModelSpec, ThreatModel
from medharden.record import HardenRecord, ModelRecord


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return tiny_cohort(folder, tiny_protocol())


@pytest.fixture(scope="module")
def original(folder: Path, cohort: Cohort) -> Classifier:
    return tiny_model(folder, cohort=cohort)


@pytest.fixture(scope="module")
def run(folder: Path, cohort: Cohort, original: Classifier) -> tuple[Path, HardenRecord]:
    return folder / "run", harden(original, cohort, tiny_protocol(), folder / "run")


def drawn(cases: int, settings: Hardening) -> Changes:
    return Changes.drawn(cases, 2, settings, torch.Generator().manual_seed(3))


UNUSED, LABELS = None, torch.zeros(0)  # what the carried adversary has no need of


# --- the carried adversary ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(6, 1, 5, 4), (6, 3, 4, 4), (6, 1, 3, 4, 5)])
def test_a_carried_perturbation_stays_within_radius_and_bounds(norm: str, shape: tuple[int, ...]) -> None:
    threat = ThreatModel(norm=norm, eps=0.3)
    adversary = CarriedAdversary(shape, threat=threat, step=1.0, regulate=False)
    generator, inputs, rows = torch.Generator().manual_seed(0), torch.rand(shape), torch.arange(6)
    for radius in (0.1, 0.3, 0.05):
        attacked = at(adversary, UNUSED, rows, inputs, LABELS, radius, generator)
        delta = (attacked - inputs).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert float(size.max()) <= radius * (1 + 1e-5)
        assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
        adversary.update(rows, inputs, attacked, torch.randn(shape), torch.rand(6), radius)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_carried_steps_reach_the_optimum_of_a_linear_model(norm: str) -> None:
    weight, inputs, rows = torch.randn(1, 1, 6, 6), torch.full((4, 1, 6, 6), 0.5), torch.arange(4)
    adversary = CarriedAdversary(inputs.shape, threat=ThreatModel(norm=norm, eps=0.1), step=1.0, regulate=False)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        attacked = at(adversary, UNUSED, rows, inputs, LABELS, 0.1, generator)
        adversary.update(rows, inputs, attacked, weight.expand_as(inputs), torch.ones(4), 0.1)
    gain = ((at(adversary, UNUSED, rows, inputs, LABELS, 0.1, generator) - inputs) * weight).flatten(1).sum(1)
    best = 0.1 * (weight.abs().sum() if norm == "linf" else weight.norm())
    assert float((gain / best).min()) > 0.99


def test_a_perturbation_costs_one_byte_a_value_and_is_carried_to_the_next_visit() -> None:
    adversary = CarriedAdversary((3, 1, 8, 8), threat=ThreatModel(eps=0.1), step=0.5, regulate=False)
    assert adversary.codes.element_size() == 1
    generator, inputs, rows = torch.Generator().manual_seed(0), torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 2])
    first = at(adversary, UNUSED, rows, inputs, LABELS, 0.1, generator)
    adversary.update(rows, inputs, first, torch.zeros_like(first), torch.ones(2), 0.1)
    again = at(adversary, UNUSED, rows, inputs, LABELS, 0.1, generator)
    torch.testing.assert_close(again, first, atol=0.1 / 127, rtol=0)
    assert adversary.visited.tolist() == [True, False, True]


def test_a_step_whose_gradient_is_not_finite_moves_nothing_and_spoils_no_later_visit() -> None:
    """Training rolls back where the loss is no longer finite; what the cases carry has to be sound then."""
    adversary = CarriedAdversary((4, 1, 3, 3), threat=ThreatModel(eps=0.1), step=1.0, regulate=False)
    rows, inputs = torch.arange(4), torch.full((4, 1, 3, 3), 0.5)
    generator = torch.Generator().manual_seed(0)
    first = at(adversary, UNUSED, rows, inputs, LABELS, 0.1, generator)
    broken = torch.stack([torch.full((1, 3, 3), v) for v in (torch.nan, torch.inf, -torch.inf, 1.0)])
    adversary.update(rows, inputs, first, broken, torch.zeros(4), 0.1)
    again = at(adversary, UNUSED, rows, inputs, LABELS, 0.1, generator)
    assert torch.allclose(again[:3], first[:3], atol=1e-3)
    assert torch.allclose(again[3], (first[3] + 0.1).clamp(max=0.6), atol=1e-3)


def test_regulation_lowers_the_radius_of_wrong_cases_and_raises_it_again_for_confident_ones() -> None:
    adversary = CarriedAdversary((2, 1, 4, 4), threat=ThreatModel(eps=0.1), step=1.0, regulate=True)
    inputs, rows, generator = torch.full((2, 1, 4, 4), 0.5), torch.arange(2), torch.Generator().manual_seed(0)
    for _ in range(30):
        attacked = at(adversary, UNUSED, rows, inputs, LABELS, 0.1, generator)
        adversary.update(rows, inputs, attacked, torch.ones_like(inputs), torch.tensor([0.1, 0.9]), 0.1)
    assert adversary.share.tolist() == [0.5, 1.5]
    size = (at(adversary, UNUSED, rows, inputs, LABELS, 0.1, generator) - inputs).abs().flatten(1).amax(1)
    torch.testing.assert_close(size, torch.tensor([0.05, 0.15]))
    for _ in range(30):
        adversary.update(rows, inputs, inputs, torch.ones_like(inputs), torch.tensor([0.9, 0.9]), 0.1)
    assert adversary.share.tolist() == [1.5, 1.5]


def test_augmentation_lets_the_gradient_reach_the_unaugmented_frame() -> None:
    inputs = torch.rand(6, 1, 7, 5, requires_grad=True)
    augmented = augment(inputs, drawn(6, Hardening(flip=True, shift=2, photometric=0)))
    assert augmented.shape == inputs.shape
    assert not torch.equal(augmented, inputs)
    augmented.sum().backward()
    # each output value is a copy of one input value, so the gradient counts copies
    assert float(inputs.grad.sum()) == pytest.approx(augmented.numel())


@pytest.mark.parametrize("sides", [(7, 5), (4, 5, 6)])
def test_each_case_is_shifted_by_its_own_way(sides: tuple[int, ...]) -> None:
    settings, inputs = Hardening(shift=2, photometric=0), torch.rand(5, 2, *sides)
    changes = Changes.drawn(5, len(sides), settings, torch.Generator().manual_seed(3)).held(torch.arange(5), 1, 0)
    assert len({tuple(one) for one in changes.shifts.tolist()}) > 1
    found = augment(inputs, changes)
    for case, starts, moved in zip(inputs, changes.shifts.tolist(), found, strict=True):
        for place in itertools.product(*map(range, sides)):
            source = [min(max(at + s - 2, 0), side - 1) for at, s, side in zip(place, starts, sides, strict=True)]
            assert torch.equal(moved[(slice(None), *place)], case[(slice(None), *source)])
    assert torch.equal(augment(inputs[2:4], changes.of(2, 4)), found[2:4])


def test_a_case_lies_alike_for_four_epochs_whatever_batch_it_is_in() -> None:
    settings, rows = Hardening(flip=True, shift=3), torch.arange(40)
    lies = [drawn(40, settings).held(rows, 5, epoch) for epoch in range(8)]
    for one, other in [(0, 3), (4, 7)]:
        assert torch.equal(lies[one].shifts, lies[other].shifts)
        assert torch.equal(lies[one].mirrored, lies[other].mirrored)
    assert int((lies[3].shifts != lies[4].shifts).any(1).sum()) > 20
    assert 8 < int((lies[3].mirrored != lies[4].mirrored).sum()) < 32
    assert 8 < int(lies[0].mirrored.sum()) < 32
    assert sorted(set(lies[0].shifts.flatten().tolist())) == list(range(7))
    few = drawn(3, settings).held(rows[[30, 2, 17]], 5, 1)
    assert torch.equal(few.shifts, lies[0].shifts[[30, 2, 17]])
    assert not torch.equal(drawn(40, settings).held(rows, 6, 0).shifts, lies[0].shifts)


@pytest.mark.parametrize(("method", "alike"), [("carried", 4), ("n-fgsm", 1)])
def test_under_the_carried_adversary_images_lie_still_long_enough_to_be_attacked(
    tmp_path: Path, cohort: Cohort, original: Classifier, method: str, alike: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laid anew at each visit, a case would never meet the perturbation that was made for it as it lies."""
    seen: list[list[int]] = []

    def watched(inputs: torch.Tensor, changes: Changes) -> torch.Tensor:
        seen.append(changes.shifts.tolist())
        return augment(inputs, changes)

    monkeypatch.setattr("medharden.hardening.stepping.augment", watched)
    fields = tiny_protocol().model_dump()
    fields["hardening"] |= {"method": method, "shift": 3, "epochs": 6, "learning_rate": 1e-3}
    harden(original, cohort, type(tiny_protocol()).model_validate(fields), tmp_path / "run")
    batches = len(seen) // 6
    epochs = [sorted(start for batch in seen[n * batches :][:batches] for start in batch) for n in range(6)]
    assert [epoch == epochs[0] for epoch in epochs] == [n < alike for n in range(6)]


def test_tones_vary_from_case_to_case_within_the_range_and_let_the_gradient_through_even_where_it_is_black() -> None:
    inputs = torch.cat([torch.zeros(50, 1, 4, 4), torch.full((200, 1, 4, 4), 0.5)]).requires_grad_(True)
    toned = augment(inputs, drawn(250, Hardening(photometric=0.2)))
    means = toned.detach().flatten(1).mean(1)[50:]
    # gamma alone moves 0.5 to 0.43 or 0.57; contrast is about 0.5; brightness multiplies
    assert 0.5**1.23 / 1.35 < float(means.min()) < 0.45
    assert 0.55 < float(means.max()) < 1
    assert float(toned.detach().min()) >= 0
    toned.sum().backward()
    assert torch.isfinite(inputs.grad).all()
    # where less contrast lifts black, an attacker can move it
    lifted = toned.detach().flatten(1).amin(1)[:50] > 0
    assert 10 < lifted.sum() < 40
    assert (inputs.grad[:50][lifted] > 0).all()
    unchanged = augment(inputs, drawn(250, Hardening(photometric=0)))
    assert torch.equal(unchanged, inputs)


def test_the_schedule_rises_then_falls_and_the_radius_ramps_to_its_full_size() -> None:
    settings = Hardening(learning_rate=1.0, warmup=0.25, ramp=0.5)
    rates = [learning_rate(settings, n / 100) for n in range(100)]
    assert max(rates) == rates[25] == 1.0
    assert rates[0] < 0.1
    assert rates[-1] < 0.02
    assert [radius_share(settings, d) for d in (0, 0.25, 0.5, 1)] == [0, 0.5, 1, 1]
    assert radius_share(Hardening(ramp=0.0), 0.0) == 1


@pytest.mark.parametrize(("form", "names"), [("full", 10), ("norm", 6), ("lora", 10)])
def test_a_branch_shares_no_tensor_with_the_clean_path_and_trains_its_form_alone(
    original: Classifier, form: str, names: int
) -> None:
    branch = make_branch(original, form, rank=4, seed=0)
    own = {t.data_ptr() for t in branch.state_dict().values()}
    assert not own & {t.data_ptr() for t in original.state_dict().values()}
    assert sum(p.requires_grad for p in branch.parameters()) == names


@pytest.mark.parametrize("form", ["norm", "lora"])
def test_the_layer_that_makes_the_logits_trains_where_the_network_ends_in_another(tmp_path: Path, form: str) -> None:
    torch.save(SeveralAnswers().state_dict(), tmp_path / "model.pth")
    arch, spec = "python:foreign_networks:SeveralAnswers", ModelSpec(output="logits", arguments={"num_classes": 2})
    network = make_branch(load_classifier(tmp_path / "model.pth", arch=arch, spec=spec), form, rank=2, seed=0).network
    assert all(p.requires_grad for p in network.classifier.parameters())
    assert not network.projector.bias.requires_grad


# --- hardening ---------------------------------------------------------------------------------------------------


def test_clean_path_is_bitwise_unchanged_by_hardening(
    run: tuple[Path, HardenRecord], original: Classifier, cohort: Cohort
) -> None:
    model = load_hardened(run[0], arch="python:foreign_networks:TinyNet")
    assert state_digest(model.clean_path) == state_digest(original)
    assert run[1].clean_state_before == run[1].clean_state_after == state_digest(original)
    inputs, _ = cohort.batch(cohort.indices("test"))
    assert torch.equal(model.clean_path(inputs), original(inputs))


def test_the_branch_gains_robustness_that_the_original_lacks(run: tuple[Path, HardenRecord]) -> None:
    record = run[1]
    assert record.epochs[record.branch.best_epoch].val_robust > 0.7
    assert record.epochs[record.branch.best_epoch].val_clean > 0.9
    assert record.cost.passes == 1
    assert record.cost.steps == len(record.epochs) * (200 // 25)


def test_the_branch_s_running_statistics_stay_the_original_s(run: tuple[Path, HardenRecord]) -> None:
    model = load_hardened(run[0], arch="python:foreign_networks:TinyNet")
    for (name, mine), theirs in zip(model.robust_branch.named_buffers(), model.clean_path.buffers(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_run_directory_holds_what_was_decided_and_no_checkpoint(run: tuple[Path, HardenRecord]) -> None:
    names = {p.name for p in run[0].iterdir()}
    assert names == {
        "protocol.yaml",
        "cohort.json",
        "hardened.safetensors",
        "hardened.json",
        "harden.json",
        "audit.jsonl",
    }
    assert read_record(run[0] / "harden.json", HardenRecord) == run[1]


def test_an_interrupted_run_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, run: tuple[Path, HardenRecord], cohort: Cohort, original: Classifier
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "harden" and done >= 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harden(original, cohort, tiny_protocol(), tmp_path, progress=stop)
    assert not (tmp_path / "harden.json").exists()
    seen: list[int] = []
    again = harden(
        original, cohort, tiny_protocol(), tmp_path, progress=lambda s, d, t: seen.append(d) if s == "harden" else None
    )
    assert seen[0] == 20, "the third epoch is taken up, not the first"
    assert again.hardened == run[1].hardened
    events = [json.loads(line)["event"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert "harden.interrupted" in events
    assert events[-1] == "harden.finished"


@pytest.mark.parametrize("change", ["one byte", "no seal", "another key", "weights of one's own"])
def test_a_checkpoint_that_is_not_sealed_under_the_key_is_not_taken_up_and_that_is_said(
    tmp_path: Path,
    run: tuple[Path, HardenRecord],
    cohort: Cohort,
    original: Classifier,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("medharden.hardening.run.clean_epoch_seconds", lambda *_, **__: 1.0)  # however busy it is

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "harden" and done >= 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harden(original, cohort, tiny_protocol(), tmp_path, progress=stop)
    path, mine = tmp_path / "harden.checkpoint", cohort
    data = path.read_bytes()
    if change == "one byte":
        path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif change == "no seal":
        path.write_bytes(data[:-32])
    elif change == "another key":
        mine = dataclasses.replace(cohort, seal=b"of another hospital")
    else:
        saved = torch.load(io.BytesIO(data[:-32]), weights_only=True)
        saved["training"]["state"]["epoch"] = 99
        torch.save(saved, path)
    seen: list[int] = []
    again = harden(
        original, mine, tiny_protocol(), tmp_path, progress=lambda s, d, t: seen.append(d) if s == "harden" else None
    )
    assert seen[0] == 0, "from the start"
    assert again.hardened == run[1].hardened
    assert [f.code for f in again.findings if f not in run[1].findings] == ["hardening.begun_anew"]


def test_an_interrupted_run_is_not_taken_up_under_another_protocol(
    tmp_path: Path, cohort: Cohort, original: Classifier
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "harden" and done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harden(original, cohort, tiny_protocol(), tmp_path, progress=stop)
    with pytest.raises(RunError, match="another protocol"):
        harden(original, cohort, tiny_protocol("seed: 5\n"), tmp_path)


def test_hardening_never_reads_the_test_split(
    tmp_path: Path, cohort: Cohort, original: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_rows = set(cohort.indices("test").tolist())
    read: set[int] = set()
    ordinary = Inputs.read

    def watched(self: Inputs, rows):
        read.update(int(r) for r in rows)
        return ordinary(self, rows)

    monkeypatch.setattr(Inputs, "read", watched)
    harden(original, cohort, tiny_protocol(), tmp_path)
    assert read
    assert not read & test_rows


@pytest.mark.parametrize("mode", ["mixed", "guarded", "clean", "robust"])
def test_every_fusion_mode_is_calibrated_for_three_classes(tmp_path: Path, mode: str) -> None:
    extra = f"fusion: {{mode: {mode}}}\n"
    cohort = tiny_cohort(tmp_path, tiny_protocol(extra), classes=3)
    record = harden(tiny_model(tmp_path, 3, cohort), cohort, tiny_protocol(extra), tmp_path / "run")
    assert record.fusion.mode == mode
    assert ("hardening.operating_point" in [f.code for f in record.findings]) == (mode in ("mixed", "robust"))
    if mode == "mixed":
        assert 0.5 < record.fusion.weight < 1
        assert len(record.fusion.frontier) > 3
        assert record.fusion.frontier[0].robust <= record.fusion.frontier[-1].robust
    if mode == "guarded":
        assert record.fusion.referral_rate <= 0.05 or record.findings
    model = load_hardened(tmp_path / "run", arch="python:foreign_networks:TinyNet")
    inputs, _ = cohort.batch(cohort.indices("val"))
    expected = {"clean": model.clean_path, "guarded": model.clean_path, "robust": model.robust_branch}
    if mode in expected:
        assert torch.equal(model(inputs), expected[mode](inputs))


@pytest.mark.parametrize("mode", ["clean", "guarded", "mixed", "robust"])
def test_only_a_branch_that_answers_has_its_operating_point_set(tmp_path: Path, mode: str) -> None:
    protocol = tiny_protocol(f"fusion: {{mode: {mode}}}\n")
    cohort = tiny_cohort(tmp_path, protocol)
    original = tiny_model(tmp_path)  # untrained, so that cases are uncertain
    branch = make_branch(original, "full", rank=4, seed=0)
    with torch.no_grad():
        classifier_layer(branch).bias[0] += 1.0
    before = state_digest(branch)
    calibrate(original, branch, cohort, protocol, torch.zeros(2), device="cpu", account=Account(10**6))
    assert (state_digest(branch) == before) == (mode in ("clean", "guarded"))


def training(cohort: Cohort, original: Classifier, extra: str) -> BranchTraining:
    protocol = tiny_protocol()
    fields = protocol.model_dump()
    fields["hardening"] |= {"epochs": 8, **json.loads(extra)}
    protocol = type(protocol).model_validate(fields)
    clean = copy.deepcopy(original)
    probe = Probe(clean, cohort, protocol, torch.zeros(2), "cpu")
    return BranchTraining(clean, make_branch(clean, "full", rank=4, seed=0), cohort, protocol, probe, "cpu")


def test_collapse_is_noticed_rolled_back_and_recovered_from(cohort: Cohort, original: Classifier) -> None:
    provoked = training(cohort, original, '{"learning_rate": 3.0, "ramp": 0.0, "warmup": 0.01, "epochs": 12}')
    while provoked.state.epoch < provoked.epochs:
        try:
            provoked.run_epoch(None)
        except HardeningError:
            break
    codes = [f.code for f in provoked.state.findings]
    assert "hardening.collapse" in codes
    assert provoked.state.rate < 1
    with torch.no_grad():
        assert all(torch.isfinite(p).all() for p in provoked.branch.parameters())


def test_an_interrupted_training_goes_on_with_what_its_probe_had_reached(cohort: Cohort, original: Classifier) -> None:
    begun, resumed = training(cohort, original, "{}"), training(cohort, original, "{}")
    begun.run_epoch(None)
    resumed.resume(copy.deepcopy(begun.snapshot()))
    assert torch.equal(resumed.probe.state()["adversary"]["codes"], begun.probe.state()["adversary"]["codes"])
    for trained in (begun, resumed):
        trained.run_epoch(None)
    assert resumed.probe.last_robust == begun.probe.last_robust
    assert resumed.state.history[1].val_robust == begun.state.history[1].val_robust


@pytest.mark.parametrize(("radius", "noticed"), [(0.3, False), (0.6, True)])
def test_a_fall_of_the_probe_counts_once_the_radius_has_risen(
    cohort: Cohort, original: Classifier, radius: float, noticed: bool
) -> None:
    provoked = training(cohort, original, "{}")
    provoked.run_epoch(None)
    before = provoked.state.history[0]
    provoked.state.history[0] = replace(before, radius=radius, val_robust=3 * max(before.val_robust, 0.3))
    provoked.probe.measure = lambda branch: ProbeResult(
        before.val_clean, before.val_robust * 0.9, 0, 0, before.val_clean, within=True
    )
    provoked.run_epoch(None)
    assert ("hardening.collapse" in [f.code for f in provoked.state.findings]) == noticed


@pytest.mark.parametrize(
    ("robust", "kept"),
    [
        ((0.5, 0.80, 0.76), 2),  # one standard error of .80 on 60 cases is .052
        ((0.5, 0.80, 0.70), 1),
        ((0.5, 0.80, 0.70, 0.76), 3),
        ((0.7, 0.70, 1.00, 0.99), 2),
    ],
)
def test_the_latest_epoch_within_one_standard_error_of_the_most_robust_is_released(
    cohort: Cohort, original: Classifier, robust: tuple[float, ...], kept: int
) -> None:
    trained = training(cohort, original, "{}")
    trained.probe.cases = 60
    for trained.state.epoch, value in enumerate(robust):
        trained._keep(replace(trained.probe.original, robust=value))
    assert trained.state.best_epoch == kept


def test_an_epoch_whose_clean_losses_stay_within_the_margins_is_released_before_any_other(
    cohort: Cohort, original: Classifier
) -> None:
    trained = training(cohort, original, "{}")
    within = trained.probe.original
    for trained.state.epoch, (value, kept) in enumerate([(0.9, False), (0.3, True), (0.95, False), (0.28, True)]):
        trained._keep(replace(within, robust=value, within=kept))
    assert trained.state.best_epoch == 3


def test_a_class_whose_recall_falls_is_beyond_the_margin_though_accuracy_is_not(
    cohort: Cohort, original: Classifier
) -> None:
    labels = cohort.batch(cohort.indices("val"))[1]
    margins = "endpoints: {noninferiority: [{metric: accuracy, margin: 0.1}, {metric: recall, margin: 0.1}]}"
    probe = Probe(
        original,
        cohort,
        tiny_protocol(margins),
        torch.zeros(2),
        "cpu",
        allotment=Allotment(10**6, 20, 1, 80, 60, 200_000),
    )
    right = torch.nn.functional.one_hot(labels, 2).float()
    probe._original, sample = right.clone(), probe._sample
    worse, both = right.clone(), right.clone()
    first = (labels == 0).nonzero()[:5, 0]  # of 40, and of 80 in all
    worse[first] = right[first].flip(1)
    both[first[:4]] = right[first[:4]].flip(1)
    assert not probe._result(worse, worse[sample]).within
    assert probe._result(both, both[sample]).within


def test_a_branch_that_never_holds_is_an_error_and_not_a_model(
    tmp_path: Path, cohort: Cohort, original: Classifier
) -> None:
    protocol = tiny_protocol()
    fields = protocol.model_dump()
    fields["hardening"] |= {"ramp": 0.0, "warmup": 0.001, "learning_rate": 1e6, "grad_clip": 1e6}
    with pytest.raises(HardeningError, match="collapsed"):
        harden(original, cohort, type(protocol).model_validate(fields), tmp_path)
    assert not (tmp_path / "hardened.safetensors").exists()


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (ProbeResult(0.95, 0.8, 0, 2, 0.94, True), None),
        (ProbeResult(0.7, 0.7, 0, 30, 0.5, True), "balanced accuracy"),
        (ProbeResult(0.95, 0.2, 0, 2, 0.94, True), "probe attack"),
    ],
)
def test_a_constant_answer_and_catastrophic_overfitting_both_count_as_collapse(
    now: ProbeResult, expected: str | None
) -> None:
    reason = collapsed(now, ProbeResult(0.97, 0.1, 0, 0, 0.96, True), classes=2, best_robust=0.75)
    assert (reason is None) if expected is None else (expected in (reason or ""))


@pytest.mark.parametrize(("after", "told"), [(1.9, False), (1 / 1.9, False), (2.1, True), (1 / 2.1, True)])
def test_a_machine_whose_speed_changed_in_between_makes_no_ratio_of_costs_in_silence(
    tmp_path: Path,
    cohort: Cohort,
    original: Classifier,
    monkeypatch: pytest.MonkeyPatch,
    after: float,
    told: bool,
) -> None:
    seconds = iter([1.0, after])
    monkeypatch.setattr("medharden.hardening.run.clean_epoch_seconds", lambda *_, **__: next(seconds))
    record = harden(original, cohort, tiny_protocol(), tmp_path)
    assert ("hardening.uneven_times" in [f.code for f in record.findings]) is told
    assert record.cost.clean_epoch_seconds == pytest.approx((1 + after) / 2)


@pytest.mark.parametrize("balanced", [0.03, 0.375, 0.5, 0.9])
def test_a_branch_that_answers_as_its_original_has_not_collapsed_however_bad_that_is(balanced: float) -> None:
    original = ProbeResult(balanced, 0.1, 0, 0, balanced, True)
    assert collapsed(original, original, classes=2, best_robust=0.0) is None
    fallen = ProbeResult(balanced / 2, 0.1, 0, 0, balanced / 2, True)
    assert "fell to" in str(collapsed(fallen, original, classes=2, best_robust=0.0))


def test_the_temperature_of_an_overconfident_model_is_found() -> None:
    torch.manual_seed(0)
    honest = torch.randn(4000, 3) * 2
    labels = torch.distributions.Categorical(logits=honest).sample()
    assert fit_temperature(honest * 3, labels, torch.zeros(3)) == pytest.approx(3, rel=0.1)
    bias = torch.tensor([0.0, 3.0, 0.0])  # of a threshold far from one half; about it the model is as over-confident
    assert fit_temperature((honest + bias) * 3 - bias, labels, bias) == pytest.approx(3, rel=0.1)


def test_the_decision_bias_is_the_log_odds_of_the_threshold() -> None:
    protocol = tiny_protocol("task: {classes: ['0', '1'], positive: '1', threshold: 0.2}\n")
    bias = decision_bias(protocol, ("0", "1"))
    assert bias.tolist() == pytest.approx([0.0, 1.386294], rel=1e-5)
    assert decision_bias(tiny_protocol(), ("0", "1")).tolist() == [0, 0]


def test_a_network_without_normalisation_layers_is_refused_for_the_form_that_trains_them(
    original: Classifier, test_data: Path
) -> None:
    check_form(original, "norm")
    without = load_classifier(test_data / "weights" / "breastmnist_cnn.pth", arch="python:foreign_networks:BreastCnn")
    check_form(without, "full")
    with pytest.raises(ModelError, match="no normalisation layer"):
        check_form(without, "norm")


def test_a_branch_form_brings_its_learning_rate_unless_the_protocol_states_one() -> None:
    assert Hardening() == Hardening(branch="full", learning_rate=5e-4)
    assert Hardening(branch="norm").learning_rate == 4e-3
    assert Hardening(branch="norm", learning_rate=2e-3).learning_rate == 2e-3


@pytest.mark.parametrize("method", ["pgd", "trades", "n-fgsm", "fgsm-rs", "free"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_baseline_trains_under_its_own_attack_within_the_budget(
    cohort: Cohort, original: Classifier, method: str, norm: str
) -> None:
    protocol = tiny_protocol()
    fields = protocol.model_dump()
    fields["hardening"] |= {"method": method, "attack_steps": 3, "ramp": 0.0}
    fields["threat"]["norm"] = norm
    protocol = type(protocol).model_validate(fields)
    probe = Probe(original, cohort, protocol, torch.zeros(2), "cpu")
    branch = make_branch(original, "full", rank=4, seed=0)
    trained = BranchTraining(original, branch, cohort, protocol, probe, "cpu")
    inputs, labels = cohort.batch(cohort.indices("train")[:20])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        attacked = at(trained.adversary, branch, torch.arange(20), inputs, labels, 0.06, generator)
        trained.adversary.update(torch.arange(20), inputs, attacked, torch.randn(inputs.shape), torch.ones(20), 0.06)
    delta = (attacked - inputs).flatten(1)
    most = 3 if method == "n-fgsm" else 1  # its noise is not projected: that is its point
    assert 0 < float((delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)).max()) <= 0.06 * most * (1 + 1e-5)
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    trained.run_epoch(None)
    passes = {"pgd": 4, "trades": 5, "n-fgsm": 2, "fgsm-rs": 2, "free": 1}
    assert trained.adversary.passes == passes[method]
    assert trained.state.steps == (200 // 25) * trained.adversary.replays
    assert trained.epochs == (5 if method == "free" else 20)


@pytest.mark.parametrize("method", ["pgd", "n-fgsm", "fgsm-rs"])
def test_a_baseline_s_attack_reaches_the_optimum_of_a_linear_model(method: str) -> None:
    model = linear_classifier()
    adversary = FreshAdversary(ThreatModel(eps=0.1), Hardening(method=method, attack_steps=10))
    inputs = torch.full((5, 1, 4, 4), 0.5)
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(5, dtype=torch.int64)
    attacked = at(adversary, model, torch.arange(5), inputs, labels, 0.1, generator)
    weight = model.network[1].weight[1] - model.network[1].weight[0]
    gain = ((attacked - inputs).flatten(1) * weight.detach()).sum(1)
    best = 0.1 * weight.detach().abs().sum()
    assert float((gain / best).min()) > (0.99 if method == "pgd" else 0.3)


def linear_classifier() -> Classifier:
    torch.manual_seed(0)
    record = ModelRecord("python", "x:Linear", {}, 2, 1, 2, (0.0,), (1.0,), False, "0" * 64, "0" * 64, 34)
    return Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)), record)


def test_low_rank_updates_start_at_the_original_and_merge_into_an_ordinary_network(
    cohort: Cohort, original: Classifier
) -> None:
    branch = make_branch(original, "lora", rank=2, seed=0)
    inputs, _ = cohort.batch(cohort.indices("val"))
    torch.testing.assert_close(branch(inputs), original(inputs))
    with torch.no_grad():
        for name, parameter in branch.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(0, 0.05)
    before = branch(inputs)
    assert not torch.allclose(before, original(inputs), atol=1e-3)
    merge(branch)
    assert sorted(branch.state_dict()) == sorted(original.state_dict())
    torch.testing.assert_close(branch(inputs), before)


def test_a_low_rank_branch_is_trained_stored_and_loaded(tmp_path: Path, cohort: Cohort, original: Classifier) -> None:
    protocol = tiny_protocol()
    fields = protocol.model_dump()
    fields["hardening"] |= {"branch": "lora", "rank": 2}
    record = harden(original, cohort, type(protocol).model_validate(fields), tmp_path)
    assert record.branch.form == "lora"
    assert record.branch.ranks == (1, 1), "of the protocol's 2, an update of these small layers may take 1"
    assert record.branch.stored_parameters == record.branch.trained_parameters < original.record.parameters / 4
    assert (tmp_path / "hardened.safetensors").stat().st_size < 4 * 1.4 * original.record.parameters + 4096  # its names
    back = load_hardened(tmp_path, arch="python:foreign_networks:TinyNet")
    assert set(back.robust_branch.low_rank) == {"network.features.0.weight", "network.features.3.weight"}
    before = original.network.features[3].weight
    assert not torch.equal(back.robust_branch.network.features[3].weight, before)


def test_perturbations_in_files_are_those_in_memory() -> None:
    def carried(codes: TwoFiles | None) -> torch.Tensor:
        adversary = CarriedAdversary((4, 1, 8, 8), threat=ThreatModel(eps=0.1), step=1.0, regulate=False, codes=codes)
        generator, inputs, rows = torch.Generator().manual_seed(0), torch.full((4, 1, 8, 8), 0.5), torch.arange(4)
        for turn in range(3):
            if codes is not None:
                codes.turn(turn + 1)
            attacked = at(adversary, UNUSED, rows, inputs, LABELS, 0.1, generator)
            adversary.update(rows, inputs, attacked, torch.ones_like(inputs), torch.ones(4), 0.1)
        return adversary.codes[rows]

    assert torch.equal(carried(PerturbationFiles().of("carried", (4, 1, 8, 8))), carried(None))
