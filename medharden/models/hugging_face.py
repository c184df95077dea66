"""Image classifiers of transformers: an allow-list of its classes, built from a folder's `config.json` read as data."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.extras import missing
from medharden.models.timm_import import timm_module
from medharden.text import neutral

__all__ = ["CLASSIFIERS", "config_arguments", "named_as_installed", "transformers_factory", "transformers_module"]

CLASSIFIERS = (
    "BeitForImageClassification",
    "ConvNextForImageClassification",
    "ConvNextV2ForImageClassification",
    "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "Dinov2ForImageClassification",
    "RegNetForImageClassification",
    "ResNetForImageClassification",
    "SwinForImageClassification",
    "Swinv2ForImageClassification",
    "ViTForImageClassification",
)
"""Classes that are built; none of them fetches a file, and none runs code of a folder's."""

_TWO = 2  # outputs, where a configuration names none


def transformers_module() -> Any:
    """The transformers package, imported.

    Raises:
        MissingPackageError: it is not installed.
    """
    timm_module()  # torchvision, which it imports, is then found whatever torch it was built for
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise missing(error) or error from None


def transformers_factory(name: str) -> Callable[..., nn.Module]:
    """What builds a class of the list from plain arguments of its configuration.

    Raises:
        ModelError: the class is not of the list, or transformers is not installed or does not have it.
    """
    network = _class(name)

    def make(**arguments: Any) -> nn.Module:
        config = network.config_class(**arguments)
        config._attn_implementation = "eager"  # plain operations: they have gradients, and every export writes them
        made: nn.Module = network(config)
        return made

    return make


def config_arguments(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a `config.json` shapes the network: its own class's fields, and the numbers of outputs and channels.

    Args:
        name: of the class.
        config: the file, as data.
    """
    of_network = set(inspect.signature(_class(name).config_class).parameters)
    of_every = set(inspect.signature(_base()).parameters)
    kept = {key: value for key, value in config.items() if key in of_network - of_every - {"kwargs", "num_labels"}}
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) and labels else config.get("num_labels", _TWO)
    return kept | {"num_labels": count, "num_channels": config.get("num_channels", 3)}


def named_as_installed(
    name: str, arguments: Mapping[str, Any], state: dict[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights under the names of the version that is installed; folders keep those of transformers 4.

    Args:
        name: of the class.
        arguments: of its configuration.
        state: as in the file.
        own: the network's names.

    Returns:
        The same values; or the file's own names, where they fit, or where transformers finds nothing for them either.
    """
    if own.keys() <= state.keys():
        return state
    network = _class(name)
    config = network.config_class(**arguments)
    config._attn_implementation = "eager"
    try:
        with _quiet():
            made, found = network.from_pretrained(
                None, config=config, state_dict=dict(state), output_loading_info=True, local_files_only=True
            )
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, OSError):
        return state  # what does not fit is then said by its own names
    if any(found.get(kind) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")):
        return state
    return dict(made.state_dict())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and log lines, which are the process's and put back afterwards."""
    log = importlib.import_module("transformers.utils.logging")
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _class(name: str) -> Any:
    if name not in CLASSIFIERS:
        raise ModelError(
            f"transformers:{neutral(name)[:80]} is none of the classifiers that are built: {', '.join(CLASSIFIERS)}"
        )
    found = getattr(transformers_module(), name, None)
    if found is None:
        raise ModelError(f"the transformers that is installed has no {name}; install a newer one")
    return found


def _base() -> Any:
    library = transformers_module()
    return getattr(library, "PreTrainedConfig", None) or library.PretrainedConfig
