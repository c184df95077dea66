"""torchxrayvision's models: their layers, their operating points and their range of [-1024, 1024]."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medharden.errors import ModelError
from medharden.models import load_classifier, timm_module
from medharden.protocol import ModelSpec

timm_module()  # declares what an import of torchvision may lack
densenet = importlib.import_module("torchvision.models.densenet")


class DenseNet(nn.Module):
    """torchxrayvision's DenseNet as it lays out its layers, smaller: torchvision's, of one channel, and thresholds."""

    def __init__(self, outputs: int = 18, thresholds: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        made = densenet.densenet121(num_classes=outputs)
        self.features, self.classifier = made.features, made.classifier
        self.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.register_buffer("op_threshs", torch.linspace(0.1, 0.9, outputs) if thresholds else None)

    def forward(self, x: Tensor) -> Tensor:
        """Its logits, before the sigmoid that its operating points rescale."""
        assert float(x.min()) < -1, "it warns of inputs that are no longer in [-1024, 1024]"
        seen = functional.relu(self.features(x))
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(seen, (1, 1)), 1))


def test_its_models_are_known_by_their_operating_points_and_fed_their_range(tmp_path: Path) -> None:
    network = DenseNet().eval()
    torch.save(network.state_dict(), tmp_path / "m.pt")
    model = load_classifier(tmp_path / "m.pt", arch="timm:densenet121", multilabel=True)
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert (model(x) - network((2 * x - 1) * 1024)).abs().max() < 1e-4 * network((2 * x - 1) * 1024).abs().max()
    assert "torchxrayvision's range" in model.record.origins["mean"]
    [said] = model.record.assumed
    assert "op_threshs" in said
    assert "task.threshold" in said


def test_a_normaliser_that_the_protocol_states_stays(tmp_path: Path) -> None:
    torch.save(DenseNet().state_dict(), tmp_path / "m.pt")
    spec = ModelSpec(mean=(0.5,), std=(0.25,))
    record = load_classifier(tmp_path / "m.pt", arch="timm:densenet121", multilabel=True, spec=spec).record
    assert (record.mean, record.std, record.origins["mean"]) == ((0.5,), (0.25,), "protocol")


def test_what_looks_like_one_is_refused_until_its_range_is_stated(tmp_path: Path) -> None:
    torch.save(DenseNet(thresholds=False).state_dict(), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"torchxrayvision.*set model: \{range: \[-1024, 1024\]\}"):
        load_classifier(tmp_path / "m.pt", arch="timm:densenet121", multilabel=True)
    spec = ModelSpec(range=(-1024.0, 1024.0))
    record = load_classifier(tmp_path / "m.pt", arch="timm:densenet121", multilabel=True, spec=spec).record
    assert record.mean == pytest.approx((0.5,))
    assert record.std == pytest.approx((1 / 2048,))


def test_its_resnet_loads_from_behind_its_wrapper(tmp_path: Path) -> None:
    network = timm_module().create_model("resnet50", num_classes=18, in_chans=1)
    state = {f"model.{k}": v for k, v in network.state_dict().items()} | {"op_threshs": torch.rand(18)}
    torch.save(state, tmp_path / "m.pt")
    record = load_classifier(tmp_path / "m.pt", arch="timm:resnet50", multilabel=True).record
    assert record.std == pytest.approx((1 / 2048,))


def test_a_grey_densenet_of_other_outputs_is_no_such_model(tmp_path: Path) -> None:
    torch.save(DenseNet(outputs=3, thresholds=False).state_dict(), tmp_path / "m.pt")
    record = load_classifier(tmp_path / "m.pt", arch="timm:densenet121").record
    assert any("torchxrayvision" in text for text in record.assumed), "but its range is named beside what is assumed"


def test_the_model_as_it_is_distributed_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a whole pickled module; nothing of it is called."""
    module = types.ModuleType("torchxrayvision.models")
    for name in ("torchxrayvision", "torchxrayvision.models"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(DenseNet, "__module__", "torchxrayvision.models")
    module.DenseNet = DenseNet  # type: ignore[attr-defined]
    torch.save(DenseNet(), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"torchxrayvision\.models\.DenseNet.*state_dict"):
        load_classifier(tmp_path / "m.pt", arch="timm:densenet121", multilabel=True)


def test_torchvision_s_name_for_its_layers_says_which_name_takes_one_channel(tmp_path: Path) -> None:
    torch.save(DenseNet().state_dict(), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"take three channels.*timm:densenet121"):
        load_classifier(tmp_path / "m.pt", arch="torchvision:densenet121", multilabel=True)
