"""A released model's paths stay as they were released, whatever is called on whatever part of them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, vector_to_parameters

from medharden.attacks import searched
from medharden.errors import ModelError
from medharden.models import Classifier, HardenedClassifier, state_digest
from medharden.pinning import loose_copy
from medharden.record import FusionRecord, ModelRecord

FUSION = FusionRecord("mixed", 0.7, 1.3, 0.8, 0.3, 0.02)
INPUTS = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
ANOTHER = torch.full((3, 4), 0.1)


class Net(nn.Module):
    """Everything that behaves otherwise in training."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.conv(inputs)).relu().mean((2, 3))))


def classifier(network: nn.Module) -> Classifier:
    record = ModelRecord("python", "x:Net", {}, 3, 1, 2, (0.5,), (0.5,), False, "0" * 64, "0" * 64, 1)
    return Classifier(network, record)


def released(network: nn.Module | None = None, mode: str = "mixed") -> HardenedClassifier:
    clean = classifier(network or Net())
    branch = copy.deepcopy(clean)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.mul_(1.01)
    return HardenedClassifier(clean, branch, replace(FUSION, mode=mode), torch.zeros(3))


def trained(model: nn.Module) -> None:
    """Steps of everything that lets itself be trained, twice over, by the release and by the path's own network."""
    for call in (model, model.clean_path.network, model.robust_branch.network):
        model.requires_grad_(True)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1.0)
        answers = call(INPUTS)
        if answers.requires_grad:
            answers.square().sum().backward()
        optimiser.step()


def each(change: Callable[[nn.Module], object]) -> Callable[[HardenedClassifier], None]:
    def changed(model: HardenedClassifier) -> None:
        for module in list(model.modules()):
            change(module)

    return changed


def head(model: HardenedClassifier) -> nn.Module:
    return model.clean_path.network.head


def unheard(model: HardenedClassifier) -> None:
    """Statistics by the parts themselves, past the path."""
    for module in model.modules():
        module.train()
    model.clean_path.network.norm(torch.rand(4, 4, 3, 3))
    model.clean_path.network(INPUTS)
    model.clean_path.network.norm.reset_running_stats()
    model.clean_path.network.norm(torch.rand(4, 4, 3, 3))


WITHOUT_EFFECT = {
    "train the whole": lambda m: m.train(),
    "train the path": lambda m: m.clean_path.train(),
    "train each part": each(lambda part: part.train()),
    "train by nn.Module": each(lambda part: nn.Module.train(part)),
    "set training": each(lambda part: setattr(part, "training", True)),
    "set training past setattr": each(lambda part: part.__dict__.update(training=True)),
    "apply": lambda m: m.apply(lambda part: part.train()),
    "forward of the parts": unheard,
    "a forward of the whole": lambda m: (m.train(), m(INPUTS)),
    "float": lambda m: m.float().cpu().to("cpu", torch.float32),
    "its own state": lambda m: m.load_state_dict(copy.deepcopy(m.state_dict()), strict=True),
    "its own state, assigned": lambda m: m.load_state_dict(copy.deepcopy(m.state_dict()), assign=True),
    "gradients": lambda m: m.requires_grad_(True)(INPUTS),
    "a copy that trains": lambda m: trained_copy(m),
    "a hook that looks": lambda m: head(m).register_forward_hook(lambda *seen: None),
}


def trained_copy(model: HardenedClassifier) -> None:
    part = copy.deepcopy(model.clean_path).train().requires_grad_(True)
    before = state_digest(part)
    part(INPUTS).sum().backward()
    torch.optim.SGD(part.parameters(), lr=0.1).step()
    assert part.network.norm.training
    assert state_digest(part) != before, "an ordinary classifier"


@pytest.mark.parametrize("way", WITHOUT_EFFECT)
def test_calls_that_would_wake_a_path_change_no_bit_of_it_and_no_answer(way: str) -> None:
    model = released()
    with torch.no_grad():
        answers, digest = model(INPUTS), state_digest(model)
        with torch.enable_grad():
            WITHOUT_EFFECT[way](model)
        assert torch.equal(model(INPUTS), answers)
    assert state_digest(model) == digest
    assert not any(part.training for path in (model.clean_path, model.robust_branch) for part in path.modules())
    with torch.enable_grad():
        model(INPUTS)
    assert not any(parameter.requires_grad for parameter in model.parameters())


REFUSED = {
    "half": lambda m: m.half(),
    "double of a part": lambda m: head(m).double(),
    "bfloat16": lambda m: m.clean_path.to(torch.bfloat16),
    "empty": lambda m: m.to_empty(device="cpu"),
    "meta": lambda m: m.to("meta"),
    "other weights": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "other weights of a part": lambda m: head(m).load_state_dict({"weight": ANOTHER, "bias": torch.zeros(3)}),
    "assigned weights": lambda m: head(m).load_state_dict({"weight": ANOTHER, "bias": torch.zeros(3)}, assign=True),
    "a parameter": lambda m: setattr(head(m), "weight", nn.Parameter(ANOTHER)),
    "a buffer": lambda m: setattr(m.clean_path.network.norm, "running_mean", torch.ones(4)),
    "a new buffer": lambda m: head(m).register_buffer("more", ANOTHER),
    "no buffer": lambda m: delattr(m.clean_path.network.norm, "running_mean"),
    "a module": lambda m: setattr(m.clean_path.network, "head", nn.Linear(4, 3)),
    "a module by name": lambda m: m.set_submodule("clean_path.network.head", nn.Linear(4, 3)),
    "a module added": lambda m: m.clean_path.network.add_module("head", nn.Linear(4, 3)),
    "a path": lambda m: setattr(m, "clean_path", m.robust_branch),
    "a class": lambda m: setattr(head(m), "__class__", nn.Identity),
    "momentum": lambda m: setattr(m.clean_path.network.norm, "momentum", 1.0),
    "eps": lambda m: setattr(m.clean_path.network.norm, "eps", 1.0),
    "dropout": lambda m: setattr(m.clean_path.network.drop, "p", 0.9),
    "batch statistics": lambda m: setattr(m.clean_path.network.norm, "track_running_stats", False),
    "a forward": lambda m: setattr(m.clean_path.network, "forward", lambda x: x),
    "pruning": lambda m: prune.l1_unstructured(head(m), "weight", 0.5),
    "a parametrization": lambda m: parametrize.register_parametrization(head(m), "weight", nn.Tanh()),
    "other parameters for one call": lambda m: torch.func.functional_call(
        m, {"clean_path.network.head.weight": ANOTHER}, (INPUTS,)
    ),
}


@pytest.mark.parametrize("way", REFUSED)
def test_calls_that_would_change_a_path_are_refused_and_leave_it_as_it_was(way: str) -> None:
    model = released()
    answers, digest = model(INPUTS), state_digest(model)
    with pytest.raises(ModelError, match=r"pinned|can't be replaced"):
        REFUSED[way](model)
    assert torch.equal(model(INPUTS), answers)
    assert state_digest(model) == digest


def no_grad(change: Callable[[HardenedClassifier], object]) -> Callable[[HardenedClassifier], object]:
    return torch.no_grad()(change)


NOTICED = {
    "add_": no_grad(lambda m: head(m).weight.add_(1)),
    "one value": no_grad(lambda m: head(m).weight[0, 0].add_(1)),
    "copy_": no_grad(lambda m: head(m).weight.copy_(ANOTHER)),
    "a buffer's add_": lambda m: m.clean_path.network.norm.running_var.add_(1),
    "the normalisation": lambda m: m.clean_path.mean.add_(0.1),
    "the branch": no_grad(lambda m: m.robust_branch.network.head.bias.add_(1)),
    "data": lambda m: head(m).weight.data.mul_(0.99),
    "a buffer's data": lambda m: m.clean_path.network.norm.running_mean.data.add_(0.01),
    "other data": lambda m: setattr(head(m).weight, "data", ANOTHER),
    "numpy": lambda m: head(m).weight.detach().numpy().fill(1),
    "one value of data": lambda m: head(m).weight.data[0, 0].add_(1),
    "storage": lambda m: head(m).weight.untyped_storage().fill_(0),
    "a vector": no_grad(lambda m: vector_to_parameters(torch.zeros(63), m.clean_path.parameters())),
    "an initialisation": lambda m: nn.init.zeros_(head(m).weight),
    "a start anew": lambda m: head(m).reset_parameters(),
    "a state dict": lambda m: m.state_dict()["clean_path.network.head.weight"].zero_(),
    "inference mode": lambda m: torch.inference_mode()(head(m).weight.add_)(1),
    "training": trained,
    "a dictionary": lambda m: head(m)._parameters.update(weight=nn.Parameter(ANOTHER)),
    "a dictionary of modules": lambda m: m.clean_path.network._modules.update(head=nn.Linear(4, 3)),
    "a path in a dictionary": lambda m: m._modules.update(clean_path=m.robust_branch),
    "a path added": lambda m: m.add_module("clean_path", m.robust_branch),
    "a hook that changes": lambda m: head(m).register_forward_hook(lambda part, given, made: made + 1),
    "a hook that changes in place": lambda m: head(m).register_forward_hook(lambda *seen: zeroed(seen[2])),
    "a hook before": lambda m: m.clean_path.register_forward_pre_hook(lambda part, given: (given[0] * 0,)),
    "a hook in a dictionary": lambda m: head(m)._forward_hooks.update({0: lambda *seen: seen[2] + 1}),
}


def zeroed(made: Tensor) -> None:
    made.zero_()


@pytest.mark.parametrize("way", NOTICED)
def test_a_write_that_python_cannot_prevent_is_noticed_before_the_next_answer(way: str) -> None:
    model = released()
    with torch.no_grad():
        model(INPUTS)
    NOTICED[way](model)
    for _ in range(2):  # and not only once
        with torch.no_grad(), pytest.raises(ModelError, match=r"written to|hook|was replaced"):
            model(INPUTS)


def answers_of(model: nn.Module, times: int) -> None:
    for _ in range(times):
        model(INPUTS)


def test_a_single_value_of_a_large_network_is_noticed_when_its_piece_is_read_again() -> None:
    model = released(nn.Sequential(nn.Flatten(), nn.Linear(64, 3000), nn.ReLU(), nn.Linear(3000, 3)))
    model.clean_path.network[1].weight.data[1234, 5] += 0.1
    noticed = pytest.raises(ModelError, match=r"network\.1\.weight")
    with torch.no_grad(), noticed:
        answers_of(model, 200)


@pytest.mark.parametrize("change", [lambda w: w.mul_(0.999), lambda w: w.clamp_(-0.01, 0.01), lambda w: w.add_(1e-3)])
def test_a_write_to_all_of_a_tensor_of_a_large_network_is_noticed_at_once(change: Callable[[Tensor], Tensor]) -> None:
    model = released(nn.Sequential(nn.Flatten(), nn.Linear(64, 3000), nn.ReLU(), nn.Linear(3000, 3)))
    with torch.no_grad():
        answers_of(model, 3)
        change(model.clean_path.network[3].weight.data)
        with pytest.raises(ModelError, match=r"network\.3\.weight"):
            model(INPUTS)


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.state_dict(),
        lambda m: m.to("cpu"),
        lambda m: m.decision_view(),
        copy.deepcopy,
        pickle.dumps,
        lambda m: HardenedClassifier(m.clean_path, m.robust_branch, FUSION, torch.zeros(3)),
    ],
)
@pytest.mark.parametrize("setting", [False, True])
def test_a_changed_path_is_not_saved_moved_attacked_or_copied(use: Callable[..., object], setting: bool) -> None:
    model = released()
    if setting:
        object.__setattr__(model.clean_path.network.norm, "eps", 1.0)
    else:
        model.clean_path.network.conv.weight.data[0, 0, 0, 0] = 5
    with pytest.raises(ModelError, match=r"written to: network\.(norm\.eps|conv\.weight)\."):
        use(model)


def test_a_copy_of_the_whole_is_pinned_like_it_and_a_pickled_one_too() -> None:
    model = released()
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(stream, weights_only=False)):
        assert torch.equal(again(INPUTS), model(INPUTS))
        again.apply(lambda part: part.train())
        assert not any(part.training for part in again.clean_path.modules())
        with torch.no_grad():
            head(again).weight.add_(1)
        with pytest.raises(ModelError, match="written to"):
            again(INPUTS)
    model(INPUTS)


def test_what_an_attack_searches_on_is_a_loose_copy_that_answers_alike() -> None:
    model = released()
    for copied in (loose_copy(model), searched(model.decision_view(), 2)):
        assert torch.allclose(copied(INPUTS), model(INPUTS), atol=1e-6)
        assert {type(part) for part in copied.modules()} >= {nn.Conv2d, nn.BatchNorm2d, Classifier}


def test_a_hook_that_looks_sees_what_passes_and_gradients_too() -> None:
    model, seen = released(), []
    handles = [
        head(model).register_forward_hook(lambda part, given, made: seen.append(made)),
        head(model).register_full_backward_hook(lambda part, given, made: seen.append(made)),
    ]
    inputs = INPUTS.clone().requires_grad_(True)
    model(inputs).sum().backward()
    assert len(seen) == 2
    for handle in handles:
        handle.remove()
    model(inputs)
    assert len(seen) == 2


@pytest.mark.filterwarnings("ignore")  # of what is deprecated, and of shapes that a trace takes for constants
@pytest.mark.parametrize("mode", ["mixed", "guarded"])
def test_a_pinned_model_is_exported_traced_and_compiled(mode: str) -> None:
    model = released(mode=mode)
    expected = model(INPUTS)
    batch = ({0: torch.export.Dim("cases")},)
    exported = torch.export.export(model, (INPUTS,), dynamic_shapes=batch)
    torch.testing.assert_close(exported.module()(INPUTS[:4]), expected[:4])
    torch.testing.assert_close(torch.jit.trace(model, (INPUTS,))(INPUTS), expected)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(INPUTS), expected)
    assert torch.equal(model(INPUTS), expected)


class Remembering(Net):
    """Keeps what it saw, counts and computes a buffer anew at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.last = 0, None
        self.register_buffer("shift", torch.zeros(1), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls, self.last, self.new = self.calls + 1, inputs.detach(), inputs.mean().detach()
        self.shift = torch.zeros(1)
        return super().forward(inputs + self.shift)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 5, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cells(inputs[:, 0])[0][:, -1])


class Sliced(nn.Module):
    """Takes containers apart, and makes some, at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.heads = nn.ModuleList([nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 3)])
        self.scales = nn.ParameterList([torch.ones(1), torch.full((1,), 2.0)])
        self.named = nn.ModuleDict({"last": nn.Identity()})

    def forward(self, inputs: Tensor) -> Tensor:
        values = self.features[2:](self.features[:2](inputs))
        for head in (self.heads[:1] + self.heads[1:2])[:]:
            values = head(values)
        values = type(self.named)({**self.named})["last"](self.heads[-1](values))
        return copy.copy(nn.Sequential(self.named["last"], nn.Identity()))(values) * self.scales[1:][0]


def with_a_hook_of_its_own() -> nn.Module:
    network = Net()
    network.head.register_forward_hook(lambda part, given, made: made * 2)
    return network


def normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    network = Net()
    norm(network.head)
    return network


@pytest.mark.parametrize(
    "make",
    [
        Remembering,
        Recurrent,
        Sliced,
        with_a_hook_of_its_own,
        lambda: normed(parametrizations.weight_norm),
        lambda: normed(nn.utils.spectral_norm),
        lambda: torch.fx.symbolic_trace(Net()),
    ],
)
def test_networks_of_unusual_make_are_pinned_moved_and_copied(make: Callable[[], nn.Module]) -> None:
    network = make().eval()
    with torch.no_grad():
        network(INPUTS)
        expected = classifier(copy.deepcopy(network))(INPUTS)
        model = released(network, "clean")
        for part in model.modules():
            part.train()
        for again in (model, model.to("cpu").float(), copy.deepcopy(model), loose_copy(model)):
            assert all(torch.equal(again(INPUTS), expected) for _ in range(2))
        model.check()
    assert repr(model.clean_path.network) == repr(network)


def test_a_path_is_watched_in_inference_mode_and_when_it_was_made_there() -> None:
    with torch.inference_mode():
        model = released()
        answers = model(INPUTS)
    with torch.no_grad():
        assert torch.equal(model(INPUTS), answers)
    with torch.inference_mode():
        head(model).weight.add_(1)
        with pytest.raises(ModelError, match="written to"):
            model(INPUTS)
