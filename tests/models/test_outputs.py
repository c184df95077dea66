"""Networks that answer with a tuple or a dict: the protocol names the part that holds the logits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_networks import SeveralAnswers, TinyNet
from tiny import KEY, PROTOCOL, tiny_cohort
from torch import nn

from medharden.audit import canonical_json
from medharden.cli.pipeline import Job, run_all
from medharden.errors import ModelError, ProtocolError
from medharden.hardening import fine_tune, harden
from medharden.models import (
    Classifier,
    HardenedClassifier,
    check_classifier,
    describe_hardened,
    hardened_bytes,
    load_classifier,
    load_hardened,
    state_digest,
)
from medharden.protocol import Hardening, ModelSpec, Protocol, parse_protocol
from medharden.record import FusionRecord
from medharden.verifying import verify

SEVERAL = "python:foreign_networks:SeveralAnswers"
VIT = {
    "img_size": [16, 16],
    "patch_size": [4, 4],
    "hidden_size": 24,
    "mlp_dim": 48,
    "num_layers": 1,
    "num_heads": 2,
    "classification": True,
    "post_activation": "none",
}
NAMED_VIT = f"model: {{arch: 'monai:ViT', arguments: {VIT}, output: 0}}\n"


def vit(classes: int = 2) -> nn.Module:
    """MONAI's vision transformer, which returns (logits, hidden states)."""
    pytest.importorskip("einops", reason="einops, which MONAI's ViT wants, is not installed: pip install '.[test]'")
    from monai.networks.nets import ViT

    torch.manual_seed(0)
    return ViT(in_channels=1, num_classes=classes, spatial_dims=2, **VIT).eval()


def several(path: Path, classes: int = 3) -> SeveralAnswers:
    torch.manual_seed(0)
    network = SeveralAnswers(classes).eval()
    torch.save(network.state_dict(), path)
    return network


def load_several(path: Path, output: str | int | None, **arguments: int) -> Classifier:
    return load_classifier(path, arch=SEVERAL, spec=ModelSpec(output=output, arguments=arguments))


def test_a_tuple_s_logits_are_named_by_their_index_and_come_out_bit_for_bit(tmp_path: Path) -> None:
    network = vit(classes=3)
    torch.save(network.state_dict(), tmp_path / "m.pt")
    model = load_classifier(tmp_path / "m.pt", spec=ModelSpec(arch="monai:ViT", arguments=VIT, output=0))
    assert (model.record.classes, model.record.output) == (3, 0)
    inputs = torch.rand(4, 1, 16, 16)
    check_classifier(model, inputs, ("a", "b", "c"))
    assert torch.equal(model(inputs), network(inputs)[0])


def test_a_dict_s_logits_are_named_by_their_key_though_another_layer_comes_last(tmp_path: Path) -> None:
    network = several(tmp_path / "m.pt")
    model = load_several(tmp_path / "m.pt", "logits", num_classes=3)
    assert model.record.classes == 3
    inputs = torch.rand(4, 1, 16, 16)
    check_classifier(model, inputs, ("a", "b", "c"))
    assert torch.equal(model(inputs), network(inputs)["logits"])


@pytest.mark.parametrize("output", [None, "logit", 0])
def test_an_output_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path, output: str | int | None) -> None:
    several(tmp_path / "m.pt")
    model = load_several(tmp_path / "m.pt", output, num_classes=3)
    with pytest.raises(ModelError, match=r"a dict of 'features': \(2, 96\), 'logits': \(2, 3\), .* as model\.output"):
        check_classifier(model, torch.rand(2, 1, 16, 16), ("a", "b", "c"))


def test_of_a_tuple_the_indices_are_listed(tmp_path: Path) -> None:
    torch.save(vit().state_dict(), tmp_path / "m.pt")
    for output, said in ((None, "expected one tensor of logits"), (1, "model.output is 1"), ("x", "is 'x'")):
        spec = ModelSpec(arch="monai:ViT", arguments=VIT, output=output)
        with pytest.raises(ModelError, match=rf"{said}, but .* a tuple of 0: \(2, 2\), 1: list; name the one"):
            check_classifier(load_classifier(tmp_path / "m.pt", spec=spec), torch.rand(2, 1, 16, 16), ("a", "b"))


def test_an_output_named_of_a_network_that_has_one_is_refused(tmp_path: Path) -> None:
    torch.save(TinyNet().state_dict(), tmp_path / "m.pt")
    spec = ModelSpec(output="logits")
    model = load_classifier(tmp_path / "m.pt", arch="python:foreign_networks:TinyNet", spec=spec)
    with pytest.raises(ModelError, match=r"returns one tensor; leave model\.output out"):
        check_classifier(model, torch.rand(2, 1, 16, 16), ("a", "b"))


def test_one_logit_in_a_dict_is_presented_as_two_classes(tmp_path: Path) -> None:
    one = several(tmp_path / "one.pt", classes=1)
    model = load_several(tmp_path / "one.pt", "logits", num_classes=1)
    inputs = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(model(inputs).softmax(1)[:, 1], one(inputs)["logits"].sigmoid().squeeze(1))


def test_a_last_layer_of_one_output_that_makes_no_logits_says_what_to_set(tmp_path: Path) -> None:
    several(tmp_path / "m.pt")
    model = load_several(tmp_path / "m.pt", "logits", num_classes=3)
    taken = Classifier(model.network, replace(model.record, one_logit=True))
    with pytest.raises(ModelError, match=r"last layer has one output, the network answers \(2, 3\) .* num_classes"):
        check_classifier(taken, torch.rand(2, 1, 16, 16), ("a", "b", "c"))


@pytest.mark.parametrize("text", ["-1", "''", "true", "[0]", "1.5"])
def test_what_names_no_output_is_an_error_of_the_protocol(text: str) -> None:
    with pytest.raises(ProtocolError, match=r"model\.output"):
        parse_protocol(PROTOCOL + f"model: {{output: {text}}}\n", "tiny.yaml")


def test_a_hardened_network_of_a_named_output_is_stored_and_loaded(tmp_path: Path) -> None:
    torch.save(vit().state_dict(), tmp_path / "m.pt")
    spec = ModelSpec(arch="monai:ViT", arguments=VIT, output=0)
    clean, branch = (load_classifier(tmp_path / "m.pt", spec=spec) for _ in range(2))
    with torch.no_grad():
        branch.network.norm.weight.add_(0.1)
    model = HardenedClassifier(clean, branch, FusionRecord("mixed", 0.7, 1.3, 0.8, 0.3, 0.02), torch.zeros(2))
    description = canonical_json(describe_hardened(model)) + b"\n"
    (tmp_path / "hardened.safetensors").write_bytes(hardened_bytes(model, description))
    (tmp_path / "hardened.json").write_bytes(description)
    back = load_hardened(tmp_path)
    inputs = torch.rand(3, 1, 16, 16)
    assert state_digest(back) == state_digest(model)
    assert torch.equal(back(inputs), model(inputs))


def small(text: str) -> Protocol:
    """The tests' protocol with little training, and what a test adds to it."""
    shorter = PROTOCOL.replace("epochs: 20", "epochs: 2").replace("probe_cases: 60", "probe_cases: 20")
    return parse_protocol(shorter.replace("steps: 10}", "steps: 4}") + text, "tiny.yaml")


def test_a_network_that_returns_a_tuple_is_hardened_evaluated_and_verified(tmp_path: Path) -> None:
    text = small(NAMED_VIT).model_dump_json()
    (tmp_path / "p.yaml").write_text(text.replace('"cases":null,"sanity_cases":32', '"cases":20,"sanity_cases":4'))
    network = vit()
    torch.save(network.state_dict(), tmp_path / "m.pt")
    spec = ModelSpec(arch="monai:ViT", arguments=VIT, output=0)
    cohort = tiny_cohort(tmp_path, small(""))
    trained = load_classifier(tmp_path / "m.pt", spec=spec)
    fine_tune(
        trained, cohort, Hardening(branch="full", epochs=4, min_steps=1, batch_size=25, learning_rate=0.01), seed=1
    )
    torch.save(trained.network.state_dict(), tmp_path / "m.pt")
    (tmp_path / "key").write_bytes(KEY)
    job = Job(
        model=tmp_path / "m.pt",
        data=tmp_path / "tiny.npz",
        protocol=str(tmp_path / "p.yaml"),
        run=tmp_path / "run",
        arch=None,
        device="cpu",
        batch_size=40,
        workers=1,
        key_file=tmp_path / "key",
        pictures=False,
    )
    assert run_all(job) in (0, 3, 4)
    found = verify(job.run, model=job.model, data=job.data, pseudonym_key=KEY)
    assert not found.faults
    assert found.clean_path is not None
    assert found.clean_path.logits_equal
    network.load_state_dict(trained.network.state_dict())
    inputs, _ = cohort.batch(cohort.indices("test"))
    assert torch.equal(load_hardened(job.run).clean_path(inputs), network(inputs)[0])
    assert "0 of what the network returns: 2 classes" in (job.run / "model-card.md").read_text()


def test_a_network_that_returns_a_dict_is_hardened(tmp_path: Path) -> None:
    network = several(tmp_path / "m.pt", classes=2)
    protocol = small("model: {output: logits, arguments: {num_classes: 2}}\n")
    cohort = tiny_cohort(tmp_path, protocol)
    original = load_classifier(tmp_path / "m.pt", arch=SEVERAL, spec=protocol.model)
    harden(original, cohort, protocol, tmp_path / "run")
    model = load_hardened(tmp_path / "run", arch=SEVERAL)
    inputs, _ = cohort.batch(cohort.indices("test"))
    assert torch.equal(model.clean_path(inputs), network(inputs)["logits"])
    changed = [n for n, p in model.robust_branch.named_parameters() if not torch.equal(p, original.get_parameter(n))]
    assert any("features" in name for name in changed)
