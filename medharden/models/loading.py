"""From a file that a team already has to a `Classifier`, without executing anything from the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.models.architectures import Architecture, build_network, network_size, parse_arch
from medharden.models.arguments import check_arguments
from medharden.models.building import require_fit
from medharden.models.bundles import bundle_classes, bundle_inputs, network_definition
from medharden.models.classifier import Classifier, state_digest
from medharden.models.given import own_network
from medharden.models.hugging_face_view import preprocessor_beside
from medharden.models.naming import Naming
from medharden.models.onnx_graph import onnx_weights
from medharden.models.origins import Numbers, origins, require_order
from medharden.models.source_view import SourceView, require_fed
from medharden.models.timm_config import (
    CONFIG_FILE,
    TimmConfig,
    config_beside,
    config_of_checkpoint,
    normaliser,
    timm_view,
    weights_of_folder,
)
from medharden.models.torchvision_view import torchvision_assumed, torchvision_view
from medharden.models.weights import Weights, read_weights
from medharden.models.xray_vision import xray_vision_range
from medharden.protocol import Input, ModelSpec
from medharden.record import ModelRecord
from medharden.text import neutral

__all__ = ["load_classifier", "rebuild_network"]


def load_classifier(
    path: Path,
    *,
    arch: str | None = None,
    spec: ModelSpec | None = None,
    dims: int = 2,
    multilabel: bool = False,
    fed: Input | None = None,
) -> Classifier:
    """Loads a pretrained classifier.

    Args:
        path: a timm training checkpoint, a state dict (`.pt`, `.pth`, `.safetensors`), a Hugging Face folder of timm or
            transformers (`config.json` and weights), or a MONAI bundle's folder.
        arch: `timm:NAME`, `monai:NAME`, `torchvision:NAME`, `torchvision:NAME.WEIGHTS`, `transformers:CLASS` or
            `python:package.module:Class`; needed where the file names none. Only `python:` runs code, the user's own,
            named by the user.
        spec: what the protocol says of the model: architecture, constructor arguments, mean and std.
        dims: spatial dimensions of the data, 2 or 3.
        multilabel: whether each output is a finding of its own, so that one output is one finding and no class of two.
        fed: how the data are made into the model's inputs, which must be as the source says; null refuses a
            bundle that says it, and is an assumption where timm does.

    Returns:
        The classifier in eval mode, on the CPU, in float32: [0, 1] in, logits out.

    Raises:
        ModelError: anything about the file or the architecture that doesn't fit.
    """
    spec = spec or ModelSpec()
    if path.is_dir() and not (path / CONFIG_FILE).is_file():
        return _load_bundle(path, arch, spec, dims, multilabel, fed)
    if path.suffix.lower() == ".onnx":
        return _load_onnx(path, arch, spec, dims, multilabel)
    file = weights_of_folder(path) if path.is_dir() else path
    config = config_beside(file, code=(arch or "").startswith("python:"))
    weights = read_weights(file, spec.weights)
    if config is not None:
        weights = _with_config(weights, config)
    architecture = _choose_arch(path.name, weights, arch, spec)
    config = config or config_of_checkpoint(weights.arch, weights.trained, weights.arguments)
    if config is not None and config.arch is not None and not _same_network(architecture, config.arch):
        if config.arch.startswith("transformers:"):
            raise ModelError(
                f"{CONFIG_FILE} beside the weights is of {config.arch}, and --arch of {architecture.text}, whose "
                "layers have other names and other settings; leave --arch out, or take the weights out of that folder"
            )
        of = neutral(_full(config.arch))[:80]
        said = f"{config.source} is of {of}, --arch of {architecture.text}: it was not read"
        weights, config = replace(weights, said=(*weights.said, said)), None
    if config is not None and config.arch is not None:
        architecture = replace(architecture, arguments=config.arguments | architecture.arguments)
    if architecture.source == "transformers" and spec.output is None:
        spec = spec.model_copy(update={"output": "logits"})
    view, beside = _view_of(file, architecture, config, spec)
    return _viewed(weights, architecture, view, beside, spec, dims, multilabel, fed)


def _load_onnx(path: Path, arch: str | None, spec: ModelSpec, dims: int, multilabel: bool) -> Classifier:
    if arch is not None or spec.arch is not None or spec.arguments or spec.prefix or spec.rename or spec.weights:
        raise ModelError(
            "an ONNX graph is its own architecture; leave --arch out, and model.arch, arguments, weights, prefix and "
            "rename"
        )
    weights, arguments = onnx_weights(path, dims)
    return _assemble(weights, Architecture("onnx", "graph", arguments), "", spec, dims, multilabel)


def _view_of(
    file: Path, arch: Architecture, config: TimmConfig | None, spec: ModelSpec
) -> tuple[SourceView | None, tuple[Numbers | None, Numbers | None]]:
    """How the model's source makes its inputs, where it says so, and mean and std beside the weights where it doesn't.

    Raises:
        ModelError: a way that can't be followed, and nobody answers for it.
    """
    if arch.source == "transformers":
        return _followed(spec, lambda: preprocessor_beside(file)), (None, None)
    if arch.source == "torchvision":
        return _followed(spec, lambda: torchvision_view(arch.name)), (None, None)
    if config is None or config.arch is None:
        return None, (None, None)
    return _followed(spec, lambda: timm_view(config, arch.name)), normaliser(config)


def _full(arch: str) -> str:
    """An architecture's name with its source; a bare one is timm's."""
    return arch if ":" in arch else f"timm:{arch}"


def _same_network(arch: Architecture, named: str) -> bool:
    """Whether an architecture is what a configuration names, weights of it aside."""
    return arch.text.split(".")[0] == _full(named).split(".")[0]


def _with_config(weights: Weights, config: TimmConfig) -> Weights:
    """Weights with what the configuration beside them says of them.

    Raises:
        ModelError: both name an architecture, and not the same.
    """
    if weights.arch is not None and config.arch is not None and weights.arch != config.arch:
        raise ModelError(
            f"the weights name {neutral(weights.arch)[:60]} as their architecture, {CONFIG_FILE} beside them names "
            f"{neutral(config.arch)[:60]}; were they parted from their own?"
        )
    return replace(
        weights,
        arch=weights.arch or config.arch,
        classes=weights.classes or config.classes,
        said=(*weights.said, *config.left),
        source=config.source,
    )


def _viewed(
    weights: Weights,
    arch: Architecture,
    view: SourceView | None,
    beside: tuple[Numbers | None, Numbers | None],
    spec: ModelSpec,
    dims: int,
    multilabel: bool,
    fed: Input | None,
) -> Classifier:
    """A classifier whose source says how its inputs are made, or, without a view, mean and std `beside` its weights."""
    held = view is not None and spec.view == "source"
    if view is not None and held and fed is not None:
        require_fed(spec, view, fed)
    mean, std = (view.mean, view.std) if view is not None and held else beside
    told = replace(weights, mean=mean or weights.mean, std=std or weights.std)
    classifier = _assemble(told, arch, "", spec, dims, multilabel)
    classifier.view = view
    if view is None or not held:
        return classifier
    record = classifier.record
    said = {name: view.source for name in ("mean", "std") if record.origins.get(name) == weights.source}
    origin = record.origins | said | {"input": f"{view.source}: {' > '.join(view.steps)}"}
    unheld = f"it is fed as {view.whose} says ({', '.join(view.steps)}); nobody said what it is fed"
    assumed = record.assumed if fed is not None else (*record.assumed, unheld)
    classifier.record = replace(record, origins=origin, assumed=assumed)
    return classifier


def _followed(spec: ModelSpec, read: Callable[[], SourceView | None]) -> SourceView | None:
    """A source's view; null where it can't be followed and the protocol answers for it.

    Raises:
        ModelError: it can't be followed, and nobody answers for it.
    """
    try:
        return read()
    except ModelError:
        if spec.view == "source":
            raise
        return None


def _choose_arch(name: str, weights: Weights, arch: str | None, spec: ModelSpec) -> Architecture:
    if spec.arch is not None and spec.arch.startswith("python:"):
        raise ModelError("a protocol is data and can't name Python code; give python:MODULE:CLASS as --arch")
    if arch is not None and spec.arch is not None and arch != spec.arch:
        raise ModelError(f"--arch is {arch}, but the protocol's model.arch is {spec.arch}; they must agree")
    if arch is None and spec.arch is None and weights.arch is not None and weights.arch.startswith("python:"):
        raise ModelError(f"{name} names Python code as its architecture, which no file can; name it as --arch")
    named = arch or spec.arch or weights.arch
    if named is None:
        raise ModelError(
            f"{name} doesn't say what architecture its weights belong to; expected --arch timm:NAME, "
            "--arch monai:NAME, --arch torchvision:NAME, --arch transformers:CLASS or "
            "--arch python:package.module:ClassName"
        )
    return parse_arch(named, dict(spec.arguments))


def _assemble(
    weights: Weights, arch: Architecture, source: str, spec: ModelSpec, dims: int, multilabel: bool
) -> Classifier:
    of_xrays, beside = xray_vision_range(weights, spec)
    network, found = build_network(arch, weights.state, dims, Naming(spec.prefix, spec.rename))
    network.load_state_dict(found.state, strict=True)
    outputs, channels = network_size(network, found.state, arch)
    network.float().requires_grad_(True)
    unsaid = torchvision_assumed(arch.name, arch.arguments) if arch.source == "torchvision" else ()
    origin = origins(network, weights, found, of_xrays, channels)
    if of_xrays is not spec:
        origin.said.update(dict.fromkeys(("mean", "std"), "torchxrayvision's range, [-1024, 1024] (op_threshs)"))
    record = ModelRecord(
        source=source or arch.source,
        arch=arch.text if source else arch.name,
        arguments=arch.arguments,
        classes=outputs if multilabel else max(outputs, 2),
        channels=channels,
        dims=dims,
        mean=origin.mean,
        std=origin.std,
        one_logit=outputs == 1 and not multilabel,
        file=weights.file,
        state=state_digest(network),
        parameters=sum(p.numel() for p in network.parameters()),
        output=spec.output,
        class_names=weights.classes,
        origins=origin.said,
        assumed=(*origin.assumed, *beside, *unsaid),
        zscore=spec.zscore,
        zscore_nonzero=spec.zscore_nonzero,
    )
    return Classifier(network, record)


def rebuild_network(
    record: ModelRecord, state: dict[str, Tensor], trusted: str | None, given: nn.Module | None = None
) -> nn.Module:
    """Builds the network of a recorded model again, with weights of the same names.

    Args:
        record: what was recorded when it was first loaded.
        state: the network's state dict.
        trusted: the `python:` architecture that the user names now, if any.
        given: a module of that architecture that the user has at hand; it is copied, and its weights don't matter.

    Raises:
        ModelError: the architecture is Python code that the user hasn't named, or the weights don't fit.
    """
    text = record.arch if record.source == "bundle" else f"{record.source}:{record.arch}"
    if given is not None:
        network = own_network(given)
        require_fit(network, state, f"the module that was given for {text}")
        network.load_state_dict(state, strict=True)
        return network
    arch = parse_arch(text, dict(record.arguments))
    if arch.source == "python" and trusted != text:
        advice = f"name it to allow it: --arch {text}"
        if record.origins.get("built again", "").startswith("no"):
            advice = "give a module of it: load_hardened(RUN, network=MODULE)"
        raise ModelError(f"this run's architecture is Python code; {advice}")
    network, found = build_network(arch, state, record.dims)
    network.load_state_dict(found.state, strict=True)
    outputs, channels = network_size(network, found.state, arch)
    if (outputs, channels) != (1 if record.one_logit else record.classes, record.channels):
        raise ModelError(
            f"hardened.json tells of {record.classes} classes and {record.channels} channels, its weights are those of "
            f"{outputs} outputs and {channels} channels; was it replaced?"
        )
    return network.float()


def _load_bundle(
    path: Path, arch: str | None, spec: ModelSpec, dims: int, multilabel: bool, fed: Input | None
) -> Classifier:
    """Reads a MONAI bundle's `network_def` as data; bundle expressions are refused, never evaluated."""
    if arch is not None:
        raise ModelError("a MONAI bundle names its own network; leave --arch out")
    definition = network_definition(path)
    target = definition.pop("_target_", "")
    beside = ("_desc_", "_mode_", "pretrained")  # the weights come from the bundle
    arguments = {k: v for k, v in definition.items() if k not in beside} | dict(spec.arguments)
    check_arguments(arguments)
    if not isinstance(target, str):
        raise ModelError("the bundle's network_def names no network; expected one of monai.networks.nets or timm")
    if target in ("timm.create_model", "timm.models.create_model"):
        architecture = parse_arch(f"timm:{arguments.pop('model_name', '')}", arguments)
    elif "." not in target or target.startswith("monai.networks.nets."):
        architecture = parse_arch(f"monai:{target.rpartition('.')[2]}", arguments)
    else:
        raise ModelError(
            f"the bundle's network_def names {neutral(target)[:80]!r}; expected one of monai.networks.nets or timm"
        )
    dims = arguments.get("spatial_dims", dims)
    view = _followed(spec, lambda: bundle_inputs(path, dims)) if dims in (2, 3) else None
    held = view is not None and spec.view == "source"
    spec = require_fed(spec, view, fed) if view is not None and held else spec
    for name in ("model.safetensors", "model.pt", "model.pth"):
        if (path / "models" / name).is_file():
            weights = read_weights(path / "models" / name, spec.weights)
            classifier = _assemble(weights, architecture, "bundle", spec, dims, multilabel)
            classifier.record = _named_by_bundle(classifier.record, bundle_classes(path))
            classifier.view = view
            if view is not None and held:
                said = classifier.record.origins | {"mean": "bundle", "std": "bundle", "input": " > ".join(view.steps)}
                classifier.record = replace(classifier.record, origins=said)
            return classifier
    raise ModelError("the bundle has no weights: expected models/model.pt or models/model.safetensors")


def _named_by_bundle(record: ModelRecord, names: tuple[str, ...]) -> ModelRecord:
    """The record with the names that the bundle's metadata give the outputs.

    Raises:
        ModelError: the weights name them too, in another order or otherwise.
    """
    if not names:
        return record
    if len(names) != record.classes:
        unused = (
            f"the bundle's metadata.json defines {len(names)} channels of an answer of {record.classes}: they were not "
            "taken for the names of its outputs, and the order of the classes is assumed"
        )
        return replace(record, assumed=(*record.assumed, unused))
    require_order(names, record.class_names or names)
    return replace(record, class_names=names, origins=record.origins | {"class order": "bundle (metadata.json)"})
