"""Attacks on models of several findings: what is sought, what counts, and the closed-form optimum."""

from __future__ import annotations

import pytest
import torch
from attack_models import Convolutional, Linear, generator, threat, uniform
from torch import Tensor, nn

from medharden.attacks import Criterion, Objective, apgd, apgd_targeted, fab, pgd, run_suite, square, wrong_findings
from medharden.errors import RangeError
from medharden.protocol import Attack

SHAPE, FINDINGS = (1, 6, 5), 4
SUITE = (
    Attack(attack="apgd", loss="ce", steps=10),
    Attack(attack="apgd-t", loss="margin", steps=8),
    Attack(attack="fab", steps=8),
    Attack(attack="square", steps=20),
)


def _far_cases(norm: str, cases: int = 8) -> tuple[Linear, Tensor, Tensor, Tensor, float]:
    """A linear model, inputs, the findings it answers, each logit's distance to 0, and an eps that flips none."""
    model = Linear(SHAPE, FINDINGS, seed=3)
    inputs = uniform(200, *SHAPE, seed=4, low=0.4, high=0.6)
    logits = model(inputs).detach()
    distances = logits.abs() / model.weight.detach().norm(1 if norm == "linf" else 2, dim=1)
    chosen = distances.amin(1).argsort(descending=True)[:cases]
    eps = 0.5 * float(distances[chosen].min())
    assert eps < 0.3
    return model, inputs[chosen], (logits[chosen] > 0).float(), distances[chosen], eps


def _wrongness(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.where(labels > 0.5, -logits, logits)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["pgd", "apgd", "apgd_targeted"])
def test_one_finding_of_a_linear_model_falls_by_eps_times_the_dual_norm(name: str, norm: str) -> None:
    model, inputs, labels, _, eps = _far_cases(norm)
    settings = {"threat": threat(norm, eps), "steps": 30, "restarts": 1, "loss": "ce", "generator": generator()}
    attack = {"pgd": pgd, "apgd": apgd, "apgd_targeted": apgd_targeted}[name]
    extra = {"targets": 3} if name == "apgd_targeted" else {}
    for finding in range(FINDINGS):
        found = attack(model, inputs, labels, **settings, **extra, finding=finding)
        risen = (_wrongness(model(found), labels) - _wrongness(model(inputs), labels))[:, finding].detach()
        best = eps * model.weight[finding].norm(1 if norm == "linf" else 2).item()
        assert (risen >= 0.99 * best).all()
        assert (risen <= 1.0001 * best).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_search_reaches_the_optimum_of_one_finding(norm: str) -> None:
    model, inputs, labels, _, eps = _far_cases(norm)
    settings = {"threat": threat(norm, eps), "queries": 3000, "generator": generator()}
    found = square(model, inputs, labels, **settings, finding=2)
    risen = (_wrongness(model(found), labels) - _wrongness(model(inputs), labels))[:, 2].detach()
    best = eps * model.weight[2].norm(1 if norm == "linf" else 2).item()
    assert (risen >= 0.99 * best).all()
    assert (risen <= 1.0001 * best).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_any_finding_falls_exactly_where_some_finding_is_within_reach(norm: str) -> None:
    model = Linear(SHAPE, FINDINGS, seed=5)
    inputs = uniform(60, *SHAPE, seed=6, low=0.45, high=0.55)
    logits = model(inputs).detach()
    distances = logits.abs() / model.weight.detach().norm(1 if norm == "linf" else 2, dim=1)
    nearest = distances.amin(1)
    eps = float(nearest.median())
    suite = (Attack(attack="apgd-t", loss="margin", steps=25),)
    result = run_suite(
        model, inputs, (logits > 0).float(), threat=threat(norm, eps), suite=suite, seed=0, batch_size=64
    )
    fell = torch.tensor([name != "" for name in result.won_by])
    assert fell[nearest < 0.99 * eps].all()
    assert not fell[nearest > 1.0001 * eps].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("finding", ["any", 0, 3])
def test_fab_finds_the_distance_of_a_finding(norm: str, finding: Objective) -> None:
    model, inputs, labels, distances, _ = _far_cases(norm)
    points, found = fab(model, inputs, labels, threat=threat(norm), steps=20, finding=finding)
    expected = distances.amin(1) if finding == "any" else distances[:, finding]
    assert (found >= expected * 0.9999).all()
    free = (points - 0.5).flatten(1).abs().amax(1) < 0.5 - 1e-6
    assert free.any(), "some distance must be one that no bound clips"
    assert (found[free] <= expected[free] * 1.01).all()
    assert Criterion(labels, finding).won(model(points).detach()).all()


def test_all_findings_fall_together_or_the_case_stands() -> None:
    model = Linear(SHAPE, 3, seed=7)
    inputs = uniform(40, *SHAPE, seed=8, low=0.45, high=0.55)
    labels = (model(inputs).detach() > 0).float()
    suite = (Attack(attack="apgd", loss="ce", steps=30), Attack(attack="apgd", loss="margin", steps=30))
    near, far = (
        run_suite(model, inputs, labels, threat=threat(eps=eps), suite=suite, seed=0, batch_size=64, finding="all")
        for eps in (0.01, 0.4)
    )
    assert 0 < far.won_by.count("") < len(inputs) or far.won_by.count("") == 0
    assert near.won_by.count("") > far.won_by.count("")
    for result in (near, far):
        assert result.wrong is not None
        assert result.wrong.all(1).tolist() == [name != "" for name in result.won_by]


@pytest.mark.parametrize("finding", ["any", 1])
def test_a_case_is_robust_only_if_all_that_is_sought_stays_right(finding: Objective) -> None:
    model = Convolutional(1, FINDINGS).eval()
    inputs = uniform(40, 1, 9, 9, seed=1)
    with torch.no_grad():
        model.head[3].bias -= model(inputs).median(0).values
        labels = (model(inputs) > 0).float()
    labels[::9, 1] = 1 - labels[::9, 1]
    labels[4, 2] = 1 - labels[4, 2]
    result = run_suite(
        model, inputs, labels, threat=threat(eps=0.004), suite=SUITE, seed=0, batch_size=16, finding=finding
    )
    with torch.no_grad():
        clean = wrong_findings(model(inputs), labels)
        attacked = wrong_findings(model(result.adversarial), labels)
    sought = clean.any(1) if finding == "any" else clean[:, 1]
    lost = attacked.any(1) if finding == "any" else attacked[:, 1]
    assert [name == "clean" for name in result.won_by] == sought.tolist()
    assert [name != "" for name in result.won_by] == lost.tolist()
    assert torch.equal(result.wrong, attacked)
    assert "" in result.won_by
    assert set(result.won_by) > {"", "clean"}, "some case must fall to an attack"
    assert result.findings == ()


def test_the_answer_at_a_logit_of_zero_is_absent_whatever_the_label() -> None:
    labels = torch.tensor([[0.0], [1.0]])
    assert Criterion(labels).won(torch.zeros(2, 1)).tolist() == [False, True]
    assert wrong_findings(torch.zeros(2, 1), labels).tolist() == [[False], [True]]


def test_a_referral_protects_every_finding() -> None:
    criterion = Criterion(torch.tensor([[0.0, 1.0]] * 3), refers=True)
    logits = torch.tensor([[1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])
    assert criterion.won(logits).tolist() == [True, False, False]
    assert criterion.margin(logits).tolist() == [1.0, -1.0, -1.0]


@pytest.mark.parametrize("finding", ["any", "all", 2])
@pytest.mark.parametrize("refers", [False, True])
@pytest.mark.parametrize("loss", ["margin", "cross_entropy", "dlr"])
def test_gradients_of_losses_agree_with_finite_differences(finding: Objective, refers: bool, loss: str) -> None:
    labels = (uniform(5, 3, seed=2) > 0.5).double()
    logits = torch.randn((5, 3 + refers), generator=generator(1), dtype=torch.float64).requires_grad_()
    criterion = Criterion(labels, finding, refers)
    assert torch.autograd.gradcheck(lambda z: getattr(criterion, loss)(z), logits)
    assert torch.autograd.gradcheck(lambda z: getattr(criterion.toward(torch.tensor([0, 1, 2, 0, 1])), loss)(z), logits)


def test_binary_cross_entropy_is_the_usual_one() -> None:
    labels, logits = (uniform(6, 3) > 0.5).float(), torch.randn((6, 3), generator=generator())
    usual = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    torch.testing.assert_close(Criterion(labels).cross_entropy(logits), usual.sum(1))
    torch.testing.assert_close(Criterion(labels, 2).cross_entropy(logits), usual[:, 2])
    flipped = nn.functional.binary_cross_entropy_with_logits(logits, 1 - labels, reduction="none")
    torch.testing.assert_close(Criterion(labels, "all").cross_entropy(logits), -flipped.sum(1))


def test_square_changes_a_finding_without_gradients() -> None:
    model = Linear(SHAPE, FINDINGS, seed=5)
    inputs = uniform(30, *SHAPE, seed=6, low=0.45, high=0.55)
    labels = (model(inputs).detach() > 0).float()
    found = square(model, inputs, labels, threat=threat(eps=0.2), queries=60, generator=generator())
    assert wrong_findings(model(found), labels).any(1).float().mean() > 0.9


@pytest.mark.parametrize(
    ("labels", "finding", "said"),
    [
        (torch.tensor([[0.0, 0.5]]), "any", "0 or 1"),
        (torch.tensor([[-1.0, torch.nan]]), "any", "0 or 1"),
        (torch.full((1, 2), torch.nan), "any", "a finding of which something is known"),
        (torch.tensor([[0.0, 1.0, 1.0]]), "any", "the labels have 3, the logits 2"),
        (torch.tensor([[0.0, 1.0]]), 2, r"index in 0\.\.1, got 2"),
        (torch.tensor([[0.0, 1.0]]), "some", "index in 0"),
        (torch.tensor([1]), 1, "class indices have 'any' alone"),
        (torch.tensor([1]), "all", "class indices have 'any' alone"),
    ],
)
def test_findings_that_do_not_fit_are_refused(labels: Tensor, finding, said: str) -> None:
    with pytest.raises(RangeError, match=said):
        run_suite(
            Linear((1, 2, 2), 2), uniform(1, 1, 2, 2), labels, threat=threat(), suite=SUITE, seed=0, batch_size=4,
            finding=finding,
        )  # fmt: skip
