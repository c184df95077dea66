"""Building networks by name: timm, MONAI, torchvision, or a Python class that the user names on the command line."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.foreign import own_place, place_of
from medharden.models.arguments import check_arguments
from medharden.models.building import Limits, Make, built, require_fit, sketched
from medharden.models.hugging_face import named_as_installed, transformers_factory
from medharden.models.naming import Matched, Naming, matched
from medharden.models.onnx_graph import onnx_network
from medharden.models.timm_import import monai_networks, timm_module
from medharden.models.torchvision_view import torchvision_builder
from medharden.text import neutral

__all__ = ["Architecture", "build_network", "network_size", "parse_arch"]

_CLASSES = ("num_classes", "out_channels", "n_classes", "num_labels")
_FIRST_GUESS = (2, 1)
_AS_THEY_ARE = Naming()
_MOST = 2**16  # outputs or input channels
_LONGEST_NAME = 200
# what constructors raise on arguments that they can't take
_FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NameError, RuntimeError),
    *(StopIteration, TypeError, ValueError),
)
# arguments by which timm and MONAI fetch or unpickle other files, some of their versions without care
_OTHER_WEIGHTS = ("pretrained", "checkpoint", "weights")
_NO_WEIGHTS = "pretrained_window_sizes"  # of Swin 2: the windows that it was trained with before
_FETCHED = frozenset({"CellSamWrapper", "Transchex"})  # networks of MONAI that are built from files of others alone
_OF_OTHERS = {  # networks of MONAI that classify no image, and what to do
    "EfficientNetBNFeatures": "answers with features of five sizes; of a classifier load the weights as EfficientNetBN",
    "MILModel": "answers bags of patches, not images; harden the network of a patch, such as monai:TorchVisionFCModel",
}
_CHANNELS = ("in_chans", "in_channels", "n_input_channels", "num_channels")
_SOURCES = ("timm", "monai", "torchvision", "transformers", "onnx", "python")


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        source: `timm`, `monai`, `torchvision`, `transformers`, `python`, or `onnx` of a graph among its weights.
        name: within that source; for `python`, `package.module:Class`.
        arguments: constructor arguments.
    """

    source: str
    name: str
    arguments: dict[str, Any]

    @property
    def text(self) -> str:
        """As it is given to `--arch`."""
        return f"{self.source}:{self.name}"


def parse_arch(text: str, arguments: dict[str, Any]) -> Architecture:
    """Splits `timm:NAME`, `monai:NAME`, `torchvision:NAME`, `transformers:CLASS` or `python:MODULE:CLASS`.

    A bare name is timm's.

    Raises:
        ModelError: another form.
    """
    source, _, name = text.partition(":")
    if len(text) > _LONGEST_NAME or not text.isprintable():
        raise ModelError(
            f"the architecture's name {neutral(text)[:60]!r} is no short text; expected timm:NAME or the like"
        )
    if not name:
        return Architecture("timm", text, arguments)
    if source not in _SOURCES or (source == "python" and ":" not in name):
        raise ModelError(
            f"unknown architecture {text!r}; expected timm:NAME, monai:NAME, torchvision:NAME, "
            "transformers:CLASS or python:package.module:ClassName"
        )
    return Architecture(source, name, arguments)


def build_network(
    arch: Architecture, state: dict[str, Tensor], dims: int, naming: Naming = _AS_THEY_ARE
) -> tuple[nn.Module, Matched]:
    """Builds a network whose number of classes and channels come from its weights, and which they fit.

    A first build, of any size, tells the names of the first and the last layer (a file need not keep their order);
    the shapes of these in the weights give the size of the second. Both are without values where the constructor
    allows it; the network itself is built when names and shapes are those of the weights.

    Args:
        arch: what to build.
        state: its weights; names may carry a wrapper's prefix, such as `module.`, and others may stand beside them.
        dims: spatial dimensions of the data, 2 or 3.
        naming: what the protocol says of the names.

    Returns:
        The network, and the weights under its own names, with what was done to these. They are not loaded.

    Raises:
        ModelError: no such architecture, one that can't be built with these arguments, or other weights than its own.
    """
    for name, value in arch.arguments.items():
        if value and name.startswith(_OTHER_WEIGHTS) and name != _NO_WEIGHTS:
            raise ModelError(f"model.arguments: {name} would load other weights than the model file's; leave it out")
    check_arguments(arch.arguments)
    if arch.source == "onnx":
        made = onnx_network(state)
        return made, Matched(dict(state))
    make, limits = _maker(arch, dims), Limits.of(arch.text, state)
    # the user's own code may keep what it makes between builds, and is built for real alone
    sketch = None if arch.source == "python" else sketched(make, *_FIRST_GUESS, limits)
    plan = built(make, *_FIRST_GUESS, limits) if sketch is None else sketch
    if arch.source == "transformers":
        state = named_as_installed(arch.name, arch.arguments, state, plan.state_dict())
    found = matched(state, plan.state_dict(), naming)
    size = network_size(plan, found.state, arch)
    if size != _FIRST_GUESS:
        sketch = None if sketch is None else sketched(make, *size, limits)
        plan = built(make, *size, limits) if sketch is None else sketch
    require_fit(plan, found.state, arch.text)
    if sketch is None:
        return plan, found
    network = make(*size)
    require_fit(network, found.state, arch.text)
    return network, found


def network_size(network: nn.Module, state: Mapping[str, Tensor], arch: Architecture) -> tuple[int, int]:
    """Outputs and input channels by the weights of the last and the first layer.

    Args:
        network: names the layers, in their order.
        state: weights under the network's names; where it lacks a layer, the network's own weights stand in.
        arch: whose arguments have the last word on the outputs: the logits need not come from the last layer.

    Raises:
        ModelError: the network has no such layer, or the numbers are none that a classifier has.
    """
    if arch.source == "onnx":  # whose graph was run
        return int(arch.arguments.get("num_classes", 0)), int(arch.arguments.get("in_channels", 0))
    config = getattr(network, "pretrained_cfg", None) or {}
    own = network.state_dict()
    last = _weight_name(config.get("classifier"), own) or next((n for n in reversed(own) if own[n].ndim >= 2), None)
    first = _weight_name(config.get("first_conv"), own) or next((n for n in own if own[n].ndim >= 4), None)
    told = [arch.arguments[name] for name in _CLASSES if type(arch.arguments.get(name)) is int]
    if not told and last is None:
        raise ModelError(f"{arch.text} has no layer of weights; expected a classifier")
    outputs = told[0] if told or last is None else _stored(last, state, own).shape[0]
    channels = 1 if first is None else _stored(first, state, own).shape[1]
    for what, count in (("outputs", outputs), ("input channels", channels)):
        if not 1 <= count <= _MOST:
            raise ModelError(f"the weights and model.arguments give {arch.text} {count} {what}; expected 1 to {_MOST}")
    return int(outputs), int(channels)


def _stored(name: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Tensor:
    """A layer's weights, or the network's own where there are none of this kind."""
    found = state.get(name)
    return own[name] if found is None or found.ndim != own[name].ndim else found


def _weight_name(layers: Any, own: dict[str, Tensor]) -> str | None:
    """The weight of a layer that timm's configuration names; it may name several."""
    for layer in (layers,) if isinstance(layers, str) else tuple(layers or ()):
        if f"{layer}.weight" in own:
            return f"{layer}.weight"
    return None


def _maker(arch: Architecture, dims: int) -> Make:
    """A function from outputs and channels to a network."""
    given: dict[str, Any] = {}
    if arch.source == "timm":
        factory, accepted = _timm_factory(arch.name), {"num_classes", "in_chans"}
    elif arch.source == "torchvision":
        (factory, given), accepted = torchvision_builder(arch.name), {"num_classes"}
    elif arch.source == "transformers":
        factory, accepted = transformers_factory(arch.name), {"num_labels", "num_channels"}
    else:
        factory = _monai_factory(arch.name) if arch.source == "monai" else _python_factory(arch.name)
        accepted = _parameters(factory)
    classes = (*_CLASSES, "classes") if arch.text == "monai:Classifier" else _CLASSES
    channel = () if arch.text == "monai:TorchVisionFCModel" else _CHANNELS  # whose in_channels are its head's

    def make(outputs: int, channels: int) -> nn.Module:
        known: dict[str, Any] = {"spatial_dims": dims, "pretrained": False}
        known |= dict.fromkeys(classes, outputs) | dict.fromkeys(channel, channels)
        arguments = given | {k: v for k, v in known.items() if k in accepted} | arch.arguments
        return _construct(factory, arguments, arch.text)

    return make


def _timm_factory(name: str) -> Callable[..., Any]:
    timm = timm_module()
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=3)
        raise ModelError(f"timm {timm.__version__} has no model {name!r}; near: {', '.join(near) or 'none'}")
    return functools.partial(timm.create_model, name, pretrained=False)


def _monai_factory(name: str) -> Callable[..., Any]:
    nets = monai_networks()
    factory = getattr(nets, name, None) if not name.startswith(("_", "get_")) else None
    defined_there = getattr(factory, "__module__", "").startswith("monai.networks.nets")
    if name in _OF_OTHERS:
        raise ModelError(f"monai:{name} {_OF_OTHERS[name]}")
    if not callable(factory) or not defined_there or name in _FETCHED:
        raise ModelError(f"monai.networks.nets has no network {name!r}; expected a name such as DenseNet121")
    return cast(Callable[..., Any], factory)


def _python_factory(name: str) -> Callable[..., Any]:
    module_name, _, class_name = name.partition(":")
    sys.path.insert(0, "")  # the user's working folder, as `python -m` would have it
    try:
        factory = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        place = own_place(error)
        raise ModelError(
            f"python:{name} can't be imported: {error}"
            + (f" ({place})" if place else "; run from the folder that holds it")
        ) from error
    except Exception as error:  # the user's own code may raise anything
        raise ModelError(f"python:{name} can't be imported: its own code stopped: {place_of(error)}") from error
    finally:
        sys.path.remove("")
    if not callable(factory):
        raise ModelError(f"python:{name} is a {type(factory).__name__}, expected a torch.nn.Module class")
    return cast(Callable[..., Any], factory)


def _parameters(factory: Callable[..., Any]) -> set[str]:
    """Names that a factory takes, and those that MONAI's pass on: `resnet18(**kwargs)` and `SEResNet50(**kwargs)`."""
    parameters = inspect.signature(factory).parameters
    names = {n for n, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    if len(names) < len(parameters) and getattr(factory, "__name__", "").lower().startswith("resnet"):
        names |= {"spatial_dims", "n_input_channels", "num_classes"}
    if len(names) < len(parameters):
        own = [part for part in getattr(factory, "__mro__", ()) if part.__module__.startswith("monai.")]
        names |= {name for part in own for name in inspect.signature(part.__init__).parameters}
    return names - {"self", "args", "kwargs"}


def _construct(factory: Callable[..., Any], arguments: dict[str, Any], name: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            if not name.startswith("python:"):  # a library's, of how it draws weights that are then loaded
                warnings.simplefilter("ignore")
            network = factory(**arguments)
    except ImportError as error:  # MONAI asks for a network's optional needs when it is built
        said = neutral((str(error).splitlines() or ["it does not say which"])[0])[:300]
        raise ModelError(f"{name} needs a package that is not installed: {said}") from error
    except _FAULTS as error:
        said = (str(error).splitlines() or [""])[0] or type(error).__name__
        place = own_place(error)
        raise ModelError(
            f"{name} can't be built with {neutral(str(arguments))[:300]}: {neutral(said)[:300]}"
            f"{place and f' ({place})'}; set model.arguments in the protocol"
        ) from error
    except Exception as error:  # the user's own code may raise anything
        place = own_place(error)
        if not place:
            raise
        raise ModelError(f"{name} can't be built: its own code stopped: {place}") from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"{name} made a {type(network).__name__}, expected a torch.nn.Module")
    return network
