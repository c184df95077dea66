"""Names of weights held against a network's: the wrapper they were saved in is taken off, and what is done is said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medharden.errors import ModelError
from medharden.text import neutral

__all__ = ["Matched", "Naming", "matched"]

_MOST_NAMED = 4
# what training keeps beside a network: losses, their weights, metrics, counters of averages
_BESIDE = re.compile(
    r"(?:.*[._])?(?:criterions?|criteria|loss(?:es)?(?:_f\w*)?|\w+_loss|pos_weights?|(?:class|cls)_weights?|metrics?|\w+_metrics?"
    r"|acc(?:uracy)?|\w+_acc(?:uracy)?|auroc|\w+_auroc|f1|\w+_f1|conf(?:usion)?_?mat(?:rix)?|n_averaged|num_updates|decay|op_threshs)(?:\..*)?"
)
# names of torchvision's DenseNet before 0.2, which `densenet121` of many a checkpoint still has
_OLD = re.compile(
    r"(.*denselayer\d+\.(?:norm|relu|conv))\."
    r"([12]\.(?:weight|bias|running_mean|running_var|num_batches_tracked))"
)
_LONGEST = 512  # letters of a name that is looked into


@dataclass(frozen=True)
class Naming:
    """What the protocol says of the names in a file.

    Attributes:
        prefix: what stands before each of the network's names; null finds it.
        rename: beginning of a name to what stands in its place; the first that fits holds.
    """

    prefix: str | None = None
    rename: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Matched:
    """Weights under the network's own names, as far as they could be found.

    Attributes:
        state: names to tensors; not all names need be there, nor all be the network's.
        said: what was done to the names, and what was left out.
        assumed: what of it can't be known from the file.
    """

    state: dict[str, Tensor]
    said: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def matched(state: Mapping[str, Tensor], own: Mapping[str, Tensor], naming: Naming) -> Matched:
    """Finds a network's weights among those of a file.

    Args:
        state: names as in the file.
        own: the network's names and tensors, on any device.
        naming: what the protocol says.

    Raises:
        ModelError: a prefix or renaming that fits nothing, or several wrappers that each hold the whole network.
    """
    found = Matched(dict(state))
    if naming.rename:
        found = _renamed(found, naming.rename)
    found = _with_old_names(found, own)
    prefix = _prefix(found.state, own) if naming.prefix is None else naming.prefix
    found = _unwrapped(found, own, prefix, stated=naming.prefix is not None)
    return _with_counters(_with_plain_heads(found, own), own)


def _renamed(found: Matched, rename: Mapping[str, str]) -> Matched:
    renamed: dict[str, Tensor] = {}
    used: Counter[str] = Counter()
    for name, tensor in found.state.items():
        start = next((old for old in rename if name.startswith(old)), None)
        new = name if start is None else rename[start] + name[len(start) :]
        used.update([] if start is None else [start])
        if new in renamed:
            raise ModelError(f"model.rename gives two weights the name {neutral(new)[:100]}")
        renamed[new] = tensor
    unused = [old for old in rename if not used[old]]
    if unused:
        raise ModelError(f"model.rename: no name in the file begins with {', '.join(map(repr, unused))}")
    said = tuple(f"{count} names that begin with {old!r} now begin with {rename[old]!r}" for old, count in used.items())
    return replace(found, state=renamed, said=(*found.said, *said))


def _with_old_names(found: Matched, own: Mapping[str, Tensor]) -> Matched:
    new = {_up_to_date(name): tensor for name, tensor in found.state.items()}
    changed = sum(name not in new for name in found.state)
    if (
        not changed
        or len(new) < len(found.state)
        or max(_wrappers(new, own).values(), default=0) <= max(_wrappers(found.state, own).values(), default=0)
    ):
        return found
    return replace(found, state=new, said=(*found.said, f"{changed} names of an old DenseNet were brought up to date"))


def _up_to_date(name: str) -> str:
    return _OLD.sub(r"\1\2", name) if len(name) <= _LONGEST else name


def _beside(name: str) -> bool:
    """Whether training keeps such a thing beside a network."""
    return len(name) <= _LONGEST and _BESIDE.fullmatch(name) is not None


def _wrappers(names: Iterable[str], own: Mapping[str, Tensor]) -> Counter[str]:
    """How many of the network's names stand behind each prefix."""
    found: Counter[str] = Counter()
    for name in names:
        place = 0 if len(name) <= _LONGEST else -1
        while place >= 0:
            if name[place:] in own:
                found[name[:place]] += 1
            place = name.find(".", place) + 1 or -1
    return found


def _prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The prefix behind which most of the network is found.

    Raises:
        ModelError: several hold as much of it, with other values.
    """
    counts = _wrappers(state, own)
    if not counts:
        return ""
    most = max(counts.values())
    best = sorted((prefix for prefix, count in counts.items() if count == most), key=len)
    if 2 * most > len(own) and any(_differ(state, own, best[0], other) for other in best[1:]):
        listed = ", ".join(repr(neutral(prefix)[:60]) for prefix in best[:_MOST_NAMED])
        raise ModelError(
            f"the file holds the network {len(best)} times, with other values: behind {listed}; which of them is the "
            "model that your figures are of? Name it as model.prefix in the protocol"
        )
    return best[0]


def _differ(state: Mapping[str, Tensor], own: Mapping[str, Tensor], one: str, other: str) -> bool:
    pairs = ((state[one + name], state[other + name]) for name in own if one + name in state and other + name in state)
    return any(a.shape != b.shape or not torch.equal(a, b) for a, b in pairs)


def _unwrapped(found: Matched, own: Mapping[str, Tensor], prefix: str, *, stated: bool) -> Matched:
    inside = {name[len(prefix) :]: tensor for name, tensor in found.state.items() if name.startswith(prefix)}
    outside = [name for name in found.state if not name.startswith(prefix)]
    if prefix and not inside:
        raise ModelError(f"model.prefix: no name in the file begins with {prefix!r}")
    if not prefix:  # nothing tells what is around the network from what is of it, but for what training keeps
        outside = [name for name in inside if name not in own and _beside(name)]
        inside = {name: tensor for name, tensor in inside.items() if name not in outside}
    said, assumed = list(found.said), list(found.assumed)
    if prefix:
        said.append(f"names begin with {prefix!r}" + (", as model.prefix says" if stated else ""))
    if outside:
        said.append(f"{len(outside)} weights beside the network were left out: {_listed(outside)}")
    layers = [name for name in outside if not _beside(name)]
    if layers and not stated:
        assumed.append(
            f"{len(layers)} weights beside the network ({_listed(layers)}) play no part in its answer; if they do, as "
            "another head would, name the whole model as python:MODULE:CLASS; if not, state model.prefix"
        )
    return Matched(inside, tuple(said), tuple(assumed))


def _with_plain_heads(found: Matched, own: Mapping[str, Tensor]) -> Matched:
    """A last layer within a `Sequential` (`fc.1.weight`), where the network has that layer alone (`fc.weight`)."""
    state, said, assumed = dict(found.state), list(found.said), list(found.assumed)
    extra = [name for name in state if name not in own]
    for layer in sorted(
        {name.removesuffix(".weight") for name in own if name.endswith(".weight") and name not in state}
    ):
        within = [name for name in extra if re.fullmatch(re.escape(layer) + r"\.\d+\.(?:weight|bias)", name)]
        whole = [name for name in extra if name.startswith(f"{layer}.")]
        places = {name.split(".")[-2] for name in within}
        if len(places) != 1 or len(within) != len(whole):
            continue
        for name in within:
            state[f"{layer}.{name.rpartition('.')[2]}"] = state.pop(name)
        inner = f"{layer}.{places.pop()}"
        said.append(f"{inner} of the file is {layer} of the network")
        assumed.append(f"what stands beside {inner} has no weights, and is taken for dropout or a last activation")
    return Matched(state, tuple(said), tuple(assumed))


def _with_counters(found: Matched, own: Mapping[str, Tensor]) -> Matched:
    """Counters of batches, which files of old have not, and which no answer rests on."""
    lacking = [name for name in own if name.endswith(".num_batches_tracked") and name not in found.state]
    if not lacking or own.keys() - found.state.keys() != set(lacking):
        return found
    state = found.state | {name: torch.zeros((), dtype=torch.int64) for name in lacking}
    return replace(found, state=state, said=(*found.said, f"{len(lacking)} counters of batches were set to 0"))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(neutral(name)[:80] for name in sorted(names)[:_MOST_NAMED]) + more
