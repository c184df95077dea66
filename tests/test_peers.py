"""What goes wrong with attacks elsewhere, as behaviour of ours: each test names a defect of other tools."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attack_models import Convolutional, Linear, Wrapped, answers, generator, threat, uniform
from foreign_networks import TinyNet
from torch import Tensor, nn

from medharden.attacks import apgd, apgd_targeted, fab, pgd, run_suite, square
from medharden.errors import RangeError
from medharden.models import check_classifier, load_classifier
from medharden.protocol import Attack, Suite, ThreatModel

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
