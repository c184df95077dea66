"""A device `strict` of pure Python, whose memory is the CPU's and whose rules are a GPU's; importing it registers it.

An operation over tensors of it and of the CPU raises, and so does `.numpy()`. Whatever would make a GPU and the host
wait for each other is counted: a read of a scalar, a copy in either direction that is not asked to be `non_blocking`,
an index of the host's, a mask (how many it chooses is read). A copy to the host that nobody waits for is made when its
event is waited for and no sooner, and until then what lies there is garbage. `python tests/helpers/strict_device.py
FOLDER` hardens and evaluates every case of `CASES` on it and on the CPU, and prints what came of each as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils import _pytree as tree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from medharden.transfers import EVENTS

NAME = "strict"
HELD = torch.device("cpu")

# What a GPU too takes from the host: an index, and what is copied over.
_TAKES_AN_INDEX = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index"}
_COPIES_OVER = {"aten::copy_", "aten::_copy_from", "aten::_to_copy"}
_READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::equal"}


class HostReads:
    """How often host and device had to wait for each other."""

    count = 0

    @classmethod
    @contextmanager
    def counted(cls) -> Iterator[Callable[[], int]]:
        before = cls.count
        yield lambda: cls.count - before


class Queue:
    """Copies to the host that were not made yet."""

    lock = threading.Lock()
    waiting: deque[tuple[int, torch.Tensor, torch.Tensor]] = deque()
    number = 0

    @classmethod
    def add(cls, target: torch.Tensor, source: torch.Tensor) -> None:
        with cls.lock:
            cls.number += 1
            cls.waiting.append((cls.number, target, source.to(target.dtype, copy=True)))
            target.fill_(float("nan") if target.is_floating_point() else 85)

    @classmethod
    def until(cls, number: int) -> None:
        with cls.lock:
            while cls.waiting and cls.waiting[0][0] <= number:
                _, target, source = cls.waiting.popleft()
                target.copy_(source)


class Event:
    """A place in the queue."""

    place = 0

    def record(self) -> None:
        self.place = Queue.number

    def synchronize(self) -> None:
        Queue.until(self.place)


EVENTS[NAME] = Event


class OnDevice(torch.Tensor):
    """A tensor that claims to be on the device; `held` is the same memory as the CPU sees it."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _on_device(operation, args, kwargs or {})

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError(f"a tensor of {NAME} is not the host's: .cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        HostReads.count += 1
        return self.held.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{NAME}({self.held!r})"


def _on_device(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation on the memory behind the tensors, once it was found that they are all of one device."""
    name = operation._schema.name
    leaves, shape = tree.tree_flatten((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
    hosts = [
        leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, OnDevice) and leaf.dim()
    ]
    takes = name in _COPIES_OVER or (name in _TAKES_AN_INDEX and isinstance(args[0], OnDevice))
    if ours and hosts and not takes:
        raise RuntimeError(f"{name}: tensors of {NAME} and of the CPU in one operation")
    target = kwargs.get("device")
    blocking = not _unblocked(name, args, kwargs)
    HostReads.count += _waits(name, args, hosts, ours, target) and blocking
    if name == "aten::copy_" and not isinstance(args[0], OnDevice) and not blocking:
        Queue.add(args[0], args[1].held)
        return args[0]
    plain = [_plain(leaf) for leaf in leaves]
    inner, named = tree.tree_unflatten(plain, shape)
    named.pop("pin_memory", None)
    with torch.no_grad():
        found = operation(*inner, **named)
    if name == "aten::copy_":
        return args[0]
    if name == "aten::_copy_from":
        return args[1]
    if name == "aten::_to_copy" and target is not None and torch.device(target).type == HELD.type:
        return found
    same = {id(one.held): one for one in ours}
    return tree.tree_map(lambda x: same.get(id(x), x) if id(x) in same else _claimed(x), found)


def _unblocked(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a copy was asked not to be waited for."""
    place = {"aten::copy_": 2, "aten::_copy_from": 2}.get(name)
    return bool(kwargs.get("non_blocking") or (place is not None and len(args) > place and args[place]))


def _waits(name: str, args: Any, hosts: list[Any], ours: list[Any], target: Any) -> bool:
    """Whether host and device wait for each other, unless it is a copy that was asked not to."""
    if name in _READS:
        return True
    if name == "aten::_to_copy":
        there = target is not None and torch.device(target).type
        return bool(there) and there != (NAME if ours else HELD.type)
    if name in _COPIES_OVER:
        return bool(ours) and bool(hosts)
    if name in _TAKES_AN_INDEX and isinstance(args[0], OnDevice):
        chosen = [index for index in args[1] if isinstance(index, torch.Tensor)]
        return any(not isinstance(index, OnDevice) or index.dtype == torch.bool for index in chosen)
    return False


def _plain(leaf: Any) -> Any:
    if isinstance(leaf, OnDevice):
        return leaf.held
    return HELD if isinstance(leaf, torch.device) else leaf


def _claimed(found: Any) -> Any:
    return OnDevice(found) if isinstance(found, torch.Tensor) else found


def _register() -> torch.library.Library:
    """The backend, and the operations that make tensors or copy them over: those no tensor of ours dispatches."""
    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("aten", "IMPL")
    for full in torch._C._dispatch_get_all_op_names():
        own, _, rest = full.partition("::")
        composite = torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd")
        if own != "aten" or composite:
            continue
        base, _, overload = rest.partition(".")
        operation = getattr(getattr(torch.ops.aten, base, None), overload or "default", None)
        if operation is None:
            continue
        wanted = operation._schema.arguments
        makes = any(a.name == "device" for a in wanted) and not any("Tensor" in str(a.type) for a in wanted)
        if makes or full in _COPIES_OVER:
            library.impl(rest, lambda *a, _of=operation, **k: _on_device(_of, a, k), "PrivateUse1")
    return library


_LIBRARY = _register()

METHODS = ("carried", "free", "pgd", "trades", "n-fgsm", "fgsm-rs")
LONGER = "robust, full, linf, three classes"  # whose calibration attacks nothing
VOLUME_ARCH = "python:foreign_networks:TinyVolumeNet"
VOLUMES = ("guarded, lora, l2, volumes", "mixed, norm, linf, volumes")
CASES = {
    "mixed, full, linf": ("", "full", 2),
    "mixed, norm, l2": ("threat: {eps: 0.6, norm: l2}\n", "norm", 2),
    "guarded, lora, linf": ("fusion: {mode: guarded}\n", "lora", 2),
    "guarded, norm, l2": ("fusion: {mode: guarded}\nthreat: {eps: 0.6, norm: l2}\n", "norm", 2),
    "robust, full, linf, three classes": ("fusion: {mode: robust}\n", "full", 3),
    "mixed, norm, several findings": ("several", "norm", 2),
    "guarded, full, l2, several findings": (
        "several, threat: {eps: 0.6, norm: l2}\nfusion: {mode: guarded}\n",
        "full",
        2,
    ),
    VOLUMES[0]: ("fusion: {mode: guarded}\nthreat: {eps: 0.6, norm: l2}\ninput: {dims: 3}\n", "lora", 2),
    VOLUMES[1]: ("input: {dims: 3}\n", "norm", 2),
}


"""A case whose calibration attacks nothing, so that longer training buys no reads there."""

CURVES = ("mixed, full, linf", VOLUMES[0])  # whose sanity curves are drawn too, most of what an evaluation takes here


def _protocol(extra: str, branch: str, curves: bool) -> Any:
    from tiny import PROTOCOL

    from medharden.protocol import parse_protocol

    text = PROTOCOL.replace("branch: full", f"branch: {branch}").replace("epochs: 20", "epochs: 3")
    text = text.replace("reason: Tests are quick.}", f"reason: Tests are quick., sanity_cases: {12 * curves}}}")
    if extra.startswith("several"):
        extra = extra.removeprefix("several").removeprefix(", ") + (
            "task: {kind: multilabel, classes: [a, b]}\n"
            "endpoints: {noninferiority: [{metric: accuracy, margin: 0.1}, {metric: recall, margin: 0.2}]}\n"
        )
    if "threat:" in extra:
        text = text.replace("threat: {eps: 0.06}\n", "")
    return parse_protocol(text + extra, "tiny.yaml")


def _findings(path: Path) -> Path:
    """The archive of two classes with a column a finding: a bright quadrant is one, a stripe pattern the other."""
    arrays = dict(np.load(path))
    for split in ("train", "val", "test"):
        label = arrays[f"{split}_labels"].ravel()
        arrays[f"{split}_labels"] = np.stack([label, np.arange(label.size) % 3 == 0], axis=1).astype(np.uint8)
    np.savez(path, **arrays)
    return path


def _volumes(path: Path) -> Path:
    """The archive with each image as every slice of a volume."""
    arrays = dict(np.load(path))
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.repeat(arrays[f"{split}_images"][:, None], 6, axis=1)
    np.savez(path, **arrays)
    return path


def _volume_model(folder: Path, classes: int) -> Any:
    from foreign_networks import TinyVolumeNet

    from medharden.models import load_classifier

    torch.manual_seed(1)
    torch.save(TinyVolumeNet(classes).state_dict(), folder / "model.pt")
    return load_classifier(folder / "model.pt", arch=VOLUME_ARCH, dims=3)


def outcome(folder: Path, case: str, device: str, train: int = 100, method: str = "") -> dict[str, Any]:
    """What one case comes to on one device, and how often the host waited for it in each step of training."""
    from tiny import ARCH, KEY, tiny_model, write_archive

    from medharden.data import load_cohort
    from medharden.evaluating import evaluate
    from medharden.gating import gate
    from medharden.hardening import harden
    from medharden.hardening.stepping import Steps
    from medharden.models import load_classifier, load_hardened

    extra, branch, classes = CASES[case]
    protocol = _protocol(extra, branch, case in CURVES)
    if method:
        fields = protocol.model_dump()
        fields["hardening"] |= {"method": method, "photometric": 0.1, "shift": 1, "clean_share": 0.2}
        protocol = type(protocol).model_validate(fields)
    folder.mkdir(parents=True)
    archive = write_archive(folder / "tiny.npz", classes, (train, 40, 60))
    if extra.startswith("several"):
        _findings(archive)
    whole = case in VOLUMES
    if whole:
        _volumes(archive)
    cohort = load_cohort(archive, protocol, key=KEY)
    arch, dims = (VOLUME_ARCH, 3) if whole else (ARCH, 2)
    model, run = _volume_model(folder, classes) if whole else tiny_model(folder, classes), folder / "run"
    waits: list[int] = []
    take = Steps.take

    def counted(*given: Any, **named: Any) -> Any:
        with HostReads.counted() as reads:
            found = take(*given, **named)
            waits.append(reads())
        return found

    with HostReads.counted() as reads, mock.patch.object(Steps, "take", counted):
        record = harden(model, cohort, protocol, run, device=device)
        read = reads()
    found = {"steps": record.cost.steps, "waits": waits, "reads": read}
    if method:
        return found
    original = load_classifier(folder / "model.pt", arch=arch, dims=dims)
    seen = evaluate(load_hardened(run, arch=arch), cohort, protocol, run, original=original, device=device)
    gate(run)
    subjects = {s.name: [s.clean_correct, s.robust_correct, s.referred] for s in seen.subjects}
    return found | {"subjects": subjects, "identical": seen.identity.logits_equal}


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    print(
        json.dumps(
            {
                "cases": {
                    case: {on: outcome(root / on / str(n), case, on) for on in ("cpu", NAME)}
                    for n, case in enumerate(CASES)
                },
                "long": LONGER,
                "longer": outcome(root / "longer", LONGER, NAME, train=500),
                "methods": {name: outcome(root / name, LONGER, NAME, method=name) for name in METHODS},
            }
        )
    )
