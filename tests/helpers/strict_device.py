"""A device `strict` of pure Python, whose memory is the CPU's and whose rules are a GPU's; importing it registers it.

An operation over tensors of it and of the CPU raises, so does `.numpy()`, and each read of a scalar by the host, which
would make a GPU wait, is counted. `python tests/helpers/strict_device.py FOLDER` hardens and evaluates every case of
`CASES` on it and on the CPU, and prints what came of each as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as tree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "strict"
HELD = torch.device("cpu")

# What a GPU too takes from the host: an index, and what is copied over.
_TAKES_AN_INDEX = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index"}
_COPIES_OVER = {"aten::copy_", "aten::_copy_from", "aten::_to_copy"}


class HostReads:
    """How many scalars the host has read."""

    count = 0

    @classmethod
    @contextmanager
    def counted(cls) -> Iterator[Callable[[], int]]:
        before = cls.count
        yield lambda: cls.count - before


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
    HostReads.count += name == "aten::_local_scalar_dense"
    target = kwargs.get("device")
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

CASES = {
    "mixed, full, linf": ("", "full", 2),
    "mixed, norm, l2": ("threat: {eps: 0.6, norm: l2}\n", "norm", 2),
    "guarded, lora, linf": ("fusion: {mode: guarded}\n", "lora", 2),
    "guarded, norm, l2": ("fusion: {mode: guarded}\nthreat: {eps: 0.6, norm: l2}\n", "norm", 2),
    "robust, full, linf, three classes": ("fusion: {mode: robust}\n", "full", 3),
    "mixed, norm, several findings": ("several", "norm", 2),
}


UNSEARCHED = "robust, full, linf, three classes"
"""A case whose calibration attacks nothing, so that longer training buys no reads there."""


def _protocol(extra: str, branch: str) -> Any:
    from tiny import PROTOCOL

    from medharden.protocol import parse_protocol

    text = PROTOCOL.replace("branch: full", f"branch: {branch}").replace("epochs: 20", "epochs: 3")
    if extra.startswith("several"):
        extra = (
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


def outcome(folder: Path, case: str, device: str, train: int = 100) -> dict[str, Any]:
    """What one case comes to on one device, and how often the host read a scalar while it trained."""
    from tiny import ARCH, KEY, tiny_model, write_archive

    from medharden.data import load_cohort
    from medharden.evaluating import evaluate
    from medharden.gating import gate
    from medharden.hardening import harden
    from medharden.models import load_classifier, load_hardened

    extra, branch, classes = CASES[case]
    protocol = _protocol(extra, branch)
    folder.mkdir(parents=True)
    archive = write_archive(folder / "tiny.npz", classes, (train, 40, 60))
    cohort = load_cohort(_findings(archive) if extra == "several" else archive, protocol, key=KEY)
    model, run = tiny_model(folder, classes), folder / "run"
    with HostReads.counted() as reads:
        record = harden(model, cohort, protocol, run, device=device)
        read = reads()
    original = load_classifier(folder / "model.pt", arch=ARCH)
    seen = evaluate(load_hardened(run, arch=ARCH), cohort, protocol, run, original=original, device=device)
    gate(run)
    subjects = {s.name: [s.clean_correct, s.robust_correct, s.referred] for s in seen.subjects}
    return {"subjects": subjects, "identical": seen.identity.logits_equal, "steps": record.cost.steps, "reads": read}


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
                "longer": outcome(root / "longer", UNSEARCHED, NAME, train=500),
            }
        )
    )
