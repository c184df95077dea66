"""A module in memory as a classifier: copied, checked, normalised, and built again from its name where that can be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_networks import SeveralAnswers, TinyNet
from tiny import tiny_protocol
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from medharden.data import Cohort
from medharden.errors import ModelError, RangeError, RunError
from medharden.evaluating import evaluate
from medharden.hardening import harden
from medharden.models import Classifier, Normaliser, load_classifier, load_hardened, state_digest, timm_module

CLASSES = ("healthy", "ill")
KEY = b"a key for tests, sixteen bytes or more"
EXAMPLE = torch.rand((4, 1, 16, 16), generator=torch.Generator().manual_seed(0))


class Wide(nn.Module):
    """Needs an argument, so its name alone builds none."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs).mean((2, 3)))


class Stopping(Wide):
    def __init__(self) -> None:
        super().__init__(4)

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) != 3:
            raise ZeroDivisionError("no such number of cases")
        return super().forward(inputs)


def given(module: nn.Module, example: Tensor = EXAMPLE, **said: Any) -> Classifier:
    return Classifier.from_module(module, example, **{"classes": CLASSES, "normaliser": None} | said)


def trained(module: nn.Module) -> nn.Module:
    """Some other statistics of batches than a new module has."""
    torch.manual_seed(3)
    module.train()
    for _ in range(3):
        module(torch.rand(8, *EXAMPLE.shape[1:]))
    return module.eval()


# --- what it answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normaliser", "by_hand"),
    [
        (None, lambda x: x),
        (Normaliser(mean=0.5, std=0.25), lambda x: (x - 0.5) / 0.25),
        (Normaliser(mean=(0.4,), std=(0.2,)), lambda x: (x - 0.4) / 0.2),
        (Normaliser(range=(-1, 1)), lambda x: 2 * x - 1),
        (Normaliser(zscore="case"), lambda x: (x - x.mean((1, 2, 3), True)) / x.std((1, 2, 3), False, True)),
    ],
)
def test_it_answers_as_the_module_on_normalised_input(normaliser: Normaliser | None, by_hand: Any) -> None:
    module = trained(Wide(6))
    classifier = given(module, normaliser=normaliser)
    with torch.no_grad():
        torch.testing.assert_close(classifier(EXAMPLE), module(by_hand(EXAMPLE)), rtol=1e-5, atol=1e-6)
    if normaliser is None:
        assert torch.equal(classifier(EXAMPLE), module(EXAMPLE))


def test_the_module_that_was_given_is_not_touched() -> None:
    module = trained(Wide(6)).train().requires_grad_(False).half()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    classifier = given(module)
    with torch.no_grad():
        classifier.network.head.weight.add_(1)
    assert module.training
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in module.state_dict().items())
    assert not classifier.network.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in classifier.network.parameters())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(nn.DataParallel(m))])
def test_what_wraps_a_module_is_taken_off(wrap: Any) -> None:
    module = trained(Wide(6))
    assert state_digest(given(wrap(module)).network) == state_digest(module)


def test_grey_input_is_repeated_to_the_channels_that_are_stated() -> None:
    module = TinyNet(2, in_channels=3).eval()
    classifier = given(module, channels=3, normaliser=Normaliser(mean=(0.1, 0.2, 0.3), std=1.0))
    inputs = EXAMPLE.expand(-1, 3, -1, -1) - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    with torch.no_grad():
        assert torch.equal(classifier(EXAMPLE), module(inputs))


@pytest.mark.parametrize("squeeze", [False, True])
def test_one_logit_becomes_two_classes(squeeze: bool) -> None:
    class One(TinyNet):
        def __init__(self) -> None:
            super().__init__(1)

        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs)[:, 0] if squeeze else super().forward(inputs)

    module = One().eval()
    with torch.no_grad():
        assert torch.equal(given(module)(EXAMPLE)[:, 1], module(EXAMPLE).reshape(-1))


def test_a_named_part_of_the_answer_holds_the_logits() -> None:
    module = SeveralAnswers().eval()
    with torch.no_grad():
        assert torch.equal(given(module, output="logits")(EXAMPLE), module(EXAMPLE)["logits"])


# --- its name ----------------------------------------------------------------------------------------------------


def test_a_class_that_its_name_builds_is_said_to_be_built_again() -> None:
    record = given(trained(TinyNet())).record
    assert (record.source, record.arch) == ("python", "foreign_networks:TinyNet")
    assert record.origins["built again"].startswith("yes")
    assert record.file == f"module:{record.state}"


def test_a_model_of_timm_is_known_by_its_name() -> None:
    model = timm_module().create_model("test_resnet.r160_in1k", num_classes=2, in_chans=1)
    record = given(model, torch.rand(2, 1, 64, 64)).record
    assert f"{record.source}:{record.arch}" == "timm:test_resnet"
    assert record.origins["built again"].startswith("yes")


def test_a_module_of_the_same_weights_that_answers_otherwise_is_not_taken_for_it() -> None:
    """The name builds it and the weights fit, yet another activation stands between them."""
    module = trained(TinyNet())
    module.features[2] = nn.Tanh()
    record = given(module).record
    assert record.origins["built again"].startswith("no: python:foreign_networks:TinyNet with these weights answers")


def test_a_stated_name_has_to_give_this_module() -> None:
    module = trained(Wide(6))
    record = given(module, arch=f"python:{__name__}:Wide", arguments={"width": 6}).record
    assert (record.arch, record.arguments) == (f"{__name__}:Wide", {"width": 6})
    with pytest.raises(ModelError, match="is not what python:foreign_networks:TinyNet gives"):
        given(module, arch="python:foreign_networks:TinyNet")
    with pytest.raises(ModelError, match=r"is not what .* gives"):
        given(module, arch=f"python:{__name__}:Wide", arguments={"width": 7})


def test_a_nameless_module_says_how_its_release_is_loaded() -> None:
    record = given(nn.Sequential(nn.Flatten(), nn.Linear(256, 2))).record
    assert record.origins["built again"].startswith("no: ")
    assert "load_hardened(RUN, network=MODULE)" in record.origins["built again"]


# --- what is refused ---------------------------------------------------------------------------------------------


class Drawn(TinyNet):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + torch.rand(1)


class Ends(TinyNet):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).softmax(1)


@pytest.mark.parametrize(
    ("module", "said", "words"),
    [
        (TinyNet(3), {}, "answers 3 classes, the data have 2"),
        (TinyNet(2, in_channels=3), {}, r"does not accept inputs of shape .*foreign_networks.py, line"),
        (Drawn(), {}, "otherwise the second time"),
        (Ends(), {}, "answers with probabilities"),
        (SeveralAnswers(), {}, "name the one that holds the logits"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), {}, "no shape yet"),
        ("resnet18", {}, "expected a torch.nn.Module, found a str"),
        (TinyNet(), {"normaliser": Normaliser(mean=0.5, zscore="case")}, "one of them"),
        (
            TinyNet(),
            {"normaliser": Normaliser(mean=(0.1, 0.2))},
            "normaliser: mean has 2 values, the model takes 1 channels",
        ),
        (TinyNet(), {"normaliser": Normaliser(std=0.0)}, "normaliser: .*greater than 0"),
    ],
)
def test_what_can_not_be_a_classifier_is_refused_in_words(module: Any, said: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        given(module, **said)


@pytest.mark.parametrize("example", [EXAMPLE[0], torch.zeros(2, 1, 8, 8, dtype=torch.uint8), None])
def test_the_example_is_a_batch_of_inputs(example: Any) -> None:
    with pytest.raises(ModelError, match=r"expected a few inputs .*cohort.batch"):
        given(TinyNet(), example)
    with pytest.raises(RangeError, match=r"got \[-?\d"):
        given(TinyNet(), EXAMPLE * 3 - 1)


def test_an_error_of_the_modules_own_code_says_its_place() -> None:
    with pytest.raises(ModelError) as caught:
        given(Stopping())
    said = str(caught.value)
    assert "the model's own code stopped" in said
    assert "ZeroDivisionError at test_given_modules.py, line " in said
    assert "in forward: no such number of cases" in said


def test_an_error_that_passes_medharden_on_its_way_is_not_the_users() -> None:
    """A network of torch's own layers has no code of the user's: the shape is what doesn't fit."""
    with pytest.raises(ModelError, match="does not accept inputs of shape"):
        given(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)))


# --- a whole run -------------------------------------------------------------------------------------------------


def data(changed: bool = False) -> TensorDataset:
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(200) % 2
    images = (0.4 + 0.05 * torch.randn((200, 1, 16, 16), generator=draw)).clamp(0, 1)
    images[labels == 1, :, :8, :8] += 0.2
    if changed:
        images[7, 0, 0, 0] += 0.01
    return TensorDataset(images, labels)


PROTOCOL = tiny_protocol("input: {intensity: {mode: ready}}\n")
SHORT = PROTOCOL.model_copy(update={"hardening": PROTOCOL.hardening.model_copy(update={"epochs": 2})})


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, Classifier, Cohort]:
    run = tmp_path_factory.mktemp("given") / "run"
    module = trained(Wide(6))
    cohort = Cohort.from_dataset(data(), SHORT, classes=CLASSES, key=KEY)
    original = given(module, cohort.batch(range(4))[0])
    harden(original, cohort, SHORT, run)
    return run, module, original, cohort


def test_a_release_is_loaded_with_such_a_module_and_its_clean_path_is_the_module(hardened: Any) -> None:
    run, module, original, cohort = hardened
    other = Wide(6)
    released = load_hardened(run, network=other)
    inputs, _ = cohort.batch(range(32))
    with torch.no_grad():
        assert torch.equal(released.clean_path(inputs), module(inputs))
    identity = evaluate(released, cohort, SHORT, run, original=original).identity
    assert (identity.against, identity.state_equal, identity.logits_equal) == ("module", True, True)
    assert not torch.equal(other.head.weight, module.head.weight), "the module that lends its shape is left alone"


def test_a_release_without_its_module_says_what_to_give(hardened: Any) -> None:
    run = hardened[0]
    with pytest.raises(ModelError, match=r"give a module of it: load_hardened\(RUN, network=MODULE\)"):
        load_hardened(run)
    with pytest.raises(ModelError, match="do not fit the module that was given"):
        load_hardened(run, network=Wide(7))


def test_a_run_goes_on_with_the_same_dataset_and_refuses_another(hardened: Any) -> None:
    run, _, original, cohort = hardened
    same = Cohort.from_dataset(data(), SHORT, classes=CLASSES, key=KEY)
    assert same.record == cohort.record
    with pytest.raises(RunError, match="other data"):
        harden(original, Cohort.from_dataset(data(changed=True), SHORT, classes=CLASSES, key=KEY), SHORT, run)


def test_the_data_of_another_order_of_classes_are_refused(hardened: Any, tmp_path: Path) -> None:
    _, module, _, cohort = hardened
    turned = given(copy.deepcopy(module), classes=CLASSES[::-1])
    with pytest.raises(ModelError, match="in the order ill, healthy"):
        harden(turned, cohort, SHORT, tmp_path / "run")


def test_the_command_line_says_of_an_error_in_own_code_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any error that passes the command line, such as one of a hook that runs in the backward pass."""
    from medharden import cli
    from medharden.cli import app

    def hooked() -> None:
        weight = torch.ones(1, requires_grad=True)
        weight.register_hook(lambda _: {}["Jane Doe"])
        weight.sum().backward()

    def ours() -> None:
        raise KeyError("Jane Doe")

    ours.__code__ = ours.__code__.replace(co_filename=cli.__file__)
    for work, words in (
        (hooked, "your own code stopped: KeyError at test_given_modules.py"),
        (ours, "a defect in medharden"),
    ):
        monkeypatch.setattr(app, "app", work)
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr().err
        assert left.value.code == 1
        assert words in said
        assert "Jane Doe" not in said


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class Net:\n    def __init__(self\n", r"SyntaxError at badnet\d+.py, line 2"),
        ("import os\n\nos.environ['LACKING_ON_PURPOSE']\n", r"KeyError at badnet\d+.py, line 3, in <module>"),
        (
            "def build():\n    raise PermissionError('no')\n",
            r"own code stopped: PermissionError at badnet\d+.py, line 2",
        ),
        (
            "def build():\n    return [][0]\n",
            r"out of range \(IndexError at badnet\d+.py, line 2",
        ),
    ],
)
def test_own_code_that_stops_when_it_is_imported_or_built_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    name = f"badnet{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save(TinyNet().state_dict(), tmp_path / "model.pt")
    with pytest.raises(ModelError, match=words):
        load_classifier(tmp_path / "model.pt", arch=f"python:{name}:build")
