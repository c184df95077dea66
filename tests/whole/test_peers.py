"""What goes wrong elsewhere, as behaviour of ours: each test names a defect of other tools.

Others have their test where the thing itself is tested: a trainer that moves a frozen clean branch
(test_hardening: clean_path_is_bitwise_unchanged, test_models: no_call_of_train_moves_a_buffer), resuming and half
precision that fail (test_evaluating_resume, test_attacks_suite: the_search_on_a_faster_copy), AUROC that is not
attacked finding by finding (test_evaluating_findings), images that fool no more once saved (test_attacking), patients
counted as cases (gating_verdicts: doubled rows add nothing), no place for data of one's own (test_real_runs).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attack_models import Convolutional, Linear, Wrapped, answers, generator, threat, uniform
from foreign_networks import TinyNet
from gating_factory import protocol, records
from tiny import tiny_cohort, tiny_model, tiny_protocol
from torch import Tensor, nn

from medharden.attacks import apgd, apgd_targeted, fab, pgd, run_suite, square
from medharden.errors import RangeError
from medharden.hardening import fine_tune
from medharden.hardening.branch import make_branch
from medharden.hardening.probe import Probe
from medharden.hardening.schedule import learning_rate
from medharden.hardening.training import BranchTraining
from medharden.models import check_classifier, load_classifier, mix
from medharden.protocol import Attack, Hardening, Suite, ThreatModel
from medharden.record import FusionRecord, Verdict

# The standard suite's attacks, at a tenth of their length.
SHORT = tuple(a.model_copy(update={"steps": max(a.steps // 10, 4)}) for a in Suite().attacks)


def _short(model: nn.Module, inputs: Tensor, labels: Tensor, **changed):
    settings = {"threat": threat(eps=0.1), "suite": SHORT, "seed": 0, "batch_size": 16, **changed}
    return run_suite(model, inputs, labels, **settings)


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_few_classes_neither_crash_the_suite_nor_weaken_it(classes: int, norm: str) -> None:
    """AutoAttack raises IndexError below nine other classes; ART's crashes on two."""
    model, inputs = Linear((1, 6, 6), classes), uniform(12, 1, 6, 6, low=0.4, high=0.6)
    labels = answers(model, inputs)
    result = _short(model, inputs, labels, threat=threat(norm, 0.35 if norm == "linf" else 2.0))
    assert [o.name for o in result.outcomes] == [a.name for a in SHORT]
    assert "" not in result.won_by


def test_findings_are_not_taken_for_classes() -> None:
    """Elsewhere labels of several findings are accepted in silence as cross-entropy over classes."""
    model, inputs = Linear((1, 6, 6), 3), uniform(12, 1, 6, 6, low=0.4, high=0.6)
    labels = (model(inputs) > 0).float()
    result = _short(model, inputs, labels, threat=threat(eps=0.3))
    assert result.wrong is not None
    assert result.wrong.any(1).all()
    with pytest.raises(RangeError, match=r"labels must be \(N,\) class indices, got \(12, 3\)"):
        _short(model, inputs, labels.long())


def test_a_one_logit_model_is_refused_and_does_not_look_robust() -> None:
    """A softmax over one logit is 1 whatever the input: its gradient is zero, and elsewhere it looks robust."""
    model = Linear((1, 6, 6), 1)
    with pytest.raises(RangeError, match="present one sigmoid output as two classes"):
        _short(model, uniform(4, 1, 6, 6), torch.zeros(4, dtype=torch.long))
    two = Wrapped(model, lambda z: torch.cat([torch.zeros_like(z), z], dim=1))
    inputs = uniform(12, 1, 6, 6, low=0.4, high=0.6)
    assert "" not in _short(two, inputs, answers(two, inputs), threat=threat(eps=0.4)).won_by


def test_a_one_logit_network_is_loaded_as_two_classes_that_fall_as_they_should(tmp_path: Path) -> None:
    """A sigmoid head z is presented as (0, z): its decision, at z = 0, and its gradient are the network's own."""
    network = TinyNet(1)
    with torch.no_grad():
        inputs = uniform(12, 1, 16, 16)
        network.classifier.bias -= network.eval()(inputs).median()
        labels = (network(inputs).squeeze(1) > 0).long()
    torch.save(network.state_dict(), tmp_path / "m.pt")
    model = load_classifier(tmp_path / "m.pt", arch="python:foreign_networks:TinyNet")
    check_classifier(model, inputs, ("absent", "present"))
    assert set(labels.tolist()) == {0, 1}
    assert torch.equal(answers(model, inputs), labels)
    for norm, eps in (("linf", 0.2), ("l2", 4.0)):
        result = _short(model, inputs, labels, threat=threat(norm, eps))
        assert set(result.won_by) <= {a.name for a in SHORT}
        assert not [f for f in result.findings if f.severity == "critical"]


def test_a_frozen_normalisation_layer_stays_frozen_after_an_attack() -> None:
    """torchattacks puts the whole model back into training mode after one call."""
    model = Convolutional(1, 3).train()
    model.features[1].eval()
    modes, mean = [m.training for m in model.modules()], model.features[1].running_mean.clone()
    _short(model, uniform(6, 1, 9, 9), torch.arange(6) % 3)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(model.features[1].running_mean, mean)


def test_inputs_in_hounsfield_units_are_not_clipped_to_zero_to_one() -> None:
    """torchattacks clips every input to [0, 1], so an image in HU is destroyed and the model looks broken."""
    hounsfield = ThreatModel(norm="linf", eps=20.0, bounds=(-1000.0, 1000.0))
    inputs = uniform(6, 1, 6, 6, low=-1000, high=1000)
    model = Wrapped(Linear((1, 6, 6), 2), lambda z: z / 1000)
    labels = answers(model, inputs)
    settings = {"threat": hounsfield, "generator": generator()}
    climbed = {"steps": 5, "restarts": 1, "loss": "ce", **settings}
    for found in (
        pgd(model, inputs, labels, **climbed),
        apgd(model, inputs, labels, **climbed),
        apgd_targeted(model, inputs, labels, targets=3, **climbed),
        square(model, inputs, labels, queries=10, **settings),
    ):
        assert 0 < (found - inputs).abs().max() <= 20.0 + 1e-3
    points, distances = fab(model, inputs, labels, threat=hounsfield, steps=5)
    torch.testing.assert_close((points - inputs).abs().flatten(1).amax(1), distances)


def test_inputs_outside_the_bounds_are_refused_and_not_clipped() -> None:
    """Normalised inputs given for [0, 1] are a usual mistake; clipping them hides it."""
    with pytest.raises(RangeError, match=r"inputs must lie in \[0, 1\], got .* normalise inside the model"):
        _short(Linear((1, 6, 6), 2), 2 * uniform(4, 1, 6, 6) - 1, torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize("shape", [(1, 6, 7, 5), (2, 5, 9), (1, 17, 4)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_volumes_and_images_that_are_not_square_face_every_attack(shape: tuple[int, ...], norm: str) -> None:
    """Square exists elsewhere in two dimensions alone, and for equal sides in some."""
    model, inputs = Linear(shape, 3), uniform(8, *shape, low=0.4, high=0.6)
    black_box = (Attack(attack="square", steps=30),)
    limits = threat(norm, 0.35 if norm == "linf" else 3.0)
    result = _short(model, inputs, answers(model, inputs), threat=limits, suite=black_box)
    assert result.won_by.count(black_box[0].name) > 4
    assert _short(model, inputs, answers(model, inputs), threat=limits).adversarial.shape == inputs.shape


@pytest.mark.parametrize("wrap", [lambda z: (z, z), lambda z: {"logits": z}])
def test_outputs_that_are_no_tensor_are_named(wrap) -> None:
    """Elsewhere a tuple or dict ends in an error from within the attack."""
    model = Wrapped(Linear((1, 6, 6), 2), wrap)
    with pytest.raises(RangeError, match="must return one tensor of logits"):
        _short(model, uniform(2, 1, 6, 6), torch.tensor([0, 1]))


def test_the_model_s_own_gradients_and_trainable_weights_are_left_alone() -> None:
    """An attack that backpropagates into the weights adds to whatever the trainer has gathered there."""
    model = Convolutional(1, 3)
    model.features[0].weight.requires_grad_(False)
    model.head[3].weight.grad = torch.ones_like(model.head[3].weight)
    _short(model, uniform(4, 1, 9, 9), torch.arange(4) % 3)
    assert torch.equal(model.head[3].weight.grad, torch.ones_like(model.head[3].weight))
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 7
    assert model.head[3].bias.grad is None


def test_training_takes_the_learning_rates_that_were_set(tmp_path: Path) -> None:
    """ART's fast trainer writes its own learning rate over the optimiser's."""
    rules = tiny_protocol()
    cohort, original = tiny_cohort(tmp_path, rules), tiny_model(tmp_path)
    branch = make_branch(original, "full", rank=1, seed=0)
    training = BranchTraining(
        original, branch, cohort, rules, Probe(original, cohort, rules, torch.zeros(2), "cpu"), "cpu"
    )
    seen: list[float] = []
    training.optimiser.register_step_pre_hook(lambda optimiser, *_: seen.append(optimiser.param_groups[0]["lr"]))
    training.run_epoch(None)
    total = training.epochs * training.batches
    assert seen == [learning_rate(rules.hardening, step / total) for step in range(training.batches)]


def test_ordinary_training_normalises_by_the_batch_and_ends_in_eval_mode(tmp_path: Path) -> None:
    """ART's fast trainer never enters training mode, so that statistics stay those of nothing at all."""
    rules = tiny_protocol()
    cohort, model = tiny_cohort(tmp_path, rules), tiny_model(tmp_path)
    before = model.network.features[1].running_var.clone()
    fine_tune(model, cohort, Hardening(epochs=1, min_steps=1, batch_size=25), seed=0)
    assert not torch.equal(model.network.features[1].running_var, before)
    assert not any(module.training for module in model.modules())


def test_two_classes_keep_their_margins_in_the_mixture() -> None:
    """MixedNUTS' layer normalisation maps every pair of logits to +-0.7071, however sure the model is."""
    certainty = torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0])
    pairs, unsure = torch.stack([-certainty, certainty], dim=1), torch.zeros(5, 2)
    fusion = FusionRecord("mixed", 0.5, 1.0, 1.0, 0.0, 0.0)
    for mixed in (mix(pairs, unsure, fusion, torch.zeros(2)), mix(unsure, pairs, fusion, torch.zeros(2))):
        margin = mixed[:, 1] - mixed[:, 0]
        assert (margin.diff() > 0.01).all()


def test_the_mixture_keeps_the_probabilities_that_rank_and_calibrate() -> None:
    """Adaptive smoothing answers one-hot on its accurate branch: its AUROC and calibration are lost."""
    clean = torch.randn((200, 2), generator=generator())
    fusion = FusionRecord("mixed", 0.3, 1.0, 1.0, 0.0, 0.0)
    mixed = mix(clean, torch.zeros(200, 2), fusion, torch.zeros(2)).exp()
    torch.testing.assert_close(mixed[:, 1], 0.7 * clean.softmax(1)[:, 1] + 0.15)
    assert torch.equal(mixed[:, 1].argsort(), clean.softmax(1)[:, 1].argsort())


def test_identical_scores_of_twenty_positives_get_no_pass() -> None:
    """medagentrx passes them: equal scores have no variance, and say little of patients who were not seen."""
    wide = protocol(margins=(0.5, 0.5), floor=0.01, more=(("auroc", 0.05),))
    decision = records(40, rules=wide).decide()
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert [reason.split(":")[0] for reason in decision.reasons] == ["auroc"]
