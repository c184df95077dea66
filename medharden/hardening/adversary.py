"""The carried adversary: every case keeps its perturbation from epoch to epoch, so one pass a step attacks it.

One backward pass gives both the gradient of the weights and that of the input. The second moves the perturbation
that the case carries to its next visit; over E epochs each case has had E attack steps. Kin to Free-AT (Shafahi et
al. 2019), ATTA (Zheng et al. 2020) and FGSM-PGI (Jia et al. 2022); the idea of a training-friendly attack for
adversarial fine-tuning is from Hou et al. 2022 (arXiv 2204.13232), the formulas here are ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from medharden import ranks
from medharden.attacks.projections import steepest
from medharden.hardening.perturbations import TwoFiles
from medharden.models import Classifier
from medharden.protocol import ThreatModel
from medharden.rows import Cases, single_thread_pool
from medharden.transfers import Fetched, sent

__all__ = ["CarriedAdversary", "column", "direction", "project", "start", "uniform"]

_LEVELS = 127
_SMALLEST_SHARE, _LARGEST_SHARE = 0.5, 1.5
_SHARE_UP, _SHARE_DOWN = 1.1, 0.9
_CONFIDENT = 0.75
_UNWRITTEN = 2  # batches that wait to be written, in memory


class CarriedAdversary:
    """Perturbations of all training cases, one byte a value, with a regulated radius for each case.

    A step neither reads from the device nor waits for the disk: what a case carries is read ahead, and what a step
    leaves is written once it has come from the device, both in threads.

    Attributes:
        codes: (N, C, *spatial) int8, in memory or in two files; a case's perturbation is codes * scale.
        scale: (N,) float32, where the inputs were last.
        share: (N,) float32 in [0.5, 1.5], the case's radius as a share of the common one; where the inputs were last.
        visited: (N,) bool, on the host.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        threat: ThreatModel,
        step: float,
        regulate: bool,
        codes: TwoFiles | None = None,
        held: bool = False,
    ) -> None:
        """Starts with no perturbation.

        Args:
            shape: (N, C, *spatial) of the training inputs.
            threat: norm and eps, in input units.
            step: step length as a fraction of the case's radius.
            regulate: whether a case's radius follows the branch's outcome on it.
            codes: where perturbations are kept; null keeps them in memory.
            held: whether the radius stays at 0 for a while, in which no case counts as visited.
        """
        self.threat = threat
        self.step = step
        self.regulate = regulate
        self.held = held
        self.codes: Tensor | TwoFiles = torch.zeros(tuple(shape), dtype=torch.int8) if codes is None else codes
        self.scale = torch.zeros(shape[0])
        self.share = torch.ones(shape[0])
        self.visited = torch.zeros(shape[0], dtype=torch.bool)
        self._touched = torch.zeros(shape[0], dtype=torch.bool)
        self._ahead: dict[int, Tensor] = {}
        self._unwritten: deque[tuple[set[int], Future[None]]] = deque()
        self._writer = single_thread_pool("medharden-carried")

    passes = 1
    replays = 1
    divisible = True

    def noise(self, rows: Tensor, like: Cases, generator: torch.Generator) -> Tensor | None:
        """(N, C, *spatial) uniform in [-1, 1] for a whole batch with cases on their first visit; null without."""
        fresh = bool((~self.visited[rows]).any())
        return uniform((len(rows), *like.shape[1:]), generator) if fresh else None

    def fetch(self, rows: Tensor) -> None:
        """Reads ahead what cases carry that are attacked soon, each once until then; may be called in another thread.

        Args:
            rows: (n,) case numbers.
        """
        known = rows[self.visited[rows]]
        if len(known):
            self._ahead.update(zip(known.tolist(), self.codes[known], strict=True))

    def attacked(
        self,
        branch: Classifier,
        rows: Tensor,
        inputs: Tensor,
        labels: Tensor,
        radius: float,
        noise: Tensor | None,
    ) -> Tensor:
        """The batch on its carried perturbations, clipped to the radius and the bounds.

        Args:
            branch: not used: the gradient of the last visit is in the carried perturbation.
            labels: not used.
            rows: (n,) int64 case numbers.
            inputs: (n, C, *spatial) clean.
            radius: common radius r(t), in input units.
            noise: (n, C, *spatial) of `noise`, the start of cases on their first visit; null where there are none.

        Returns:
            (n, C, *spatial) detached, ready to require a gradient.
        """
        radii, fresh = self._radii(sent(rows, inputs.device), radius, inputs), ~self.visited[rows]
        carried = self._carried(rows, fresh, inputs)
        if noise is not None and bool(fresh.any()):
            started = start(noise, inputs, self.threat.norm) * radii
            carried = torch.where(column(fresh, inputs), started, carried)
        low, high = self.threat.bounds
        return (inputs + project(carried, radii, self.threat.norm)).clamp(low, high).detach()

    def update(
        self, rows: Tensor, inputs: Tensor, attacked: Tensor, gradient: Tensor, own_probability: Tensor, radius: float
    ) -> None:
        """Moves each case's perturbation up its loss, and its radius by the branch's outcome.

        Args:
            rows: (n,) case numbers.
            inputs: (n, C, *spatial) clean.
            attacked: (n, C, *spatial) what the branch saw.
            gradient: (n, C, *spatial) of the loss, or of a multiple, with respect to `attacked`; what is not finite
                moves nothing.
            own_probability: (n,) the branch's probability of the true class, or of the least probable truth among
                findings, on `attacked`.
            radius: common radius r(t).
        """
        if radius == 0 and self.held:
            self.leave(rows)  # nothing was attacked: a case's first visit is that at which it is
            return
        self._settle_on(inputs.device)
        there = sent(rows, inputs.device)
        if self.regulate:
            share, probability = self.share[there], own_probability.detach()
            share = torch.where(probability > _CONFIDENT, share * _SHARE_UP, share)
            share = torch.where(probability < 0.5, share * _SHARE_DOWN, share)
            self.share[there] = share.clamp(_SMALLEST_SHARE, _LARGEST_SHARE)
            self._touched[rows] = True
        radii, gradient = self._radii(there, radius, inputs), gradient.nan_to_num(nan=0, posinf=0, neginf=0)
        moved = attacked - inputs + self.step * radii * steepest(gradient, self.threat.norm)
        self._store(rows, there, project(moved, radii, self.threat.norm))

    def leave(self, rows: Tensor) -> None:
        """Takes cases that are not attacked at this visit over to the next turn.

        Args:
            rows: (n,) case numbers.
        """
        if isinstance(self.codes, TwoFiles):
            self.codes.carry(rows[self.visited[rows]].tolist())

    def exchange(self) -> None:
        """Takes over what other processes noted of the cases that were theirs since the last exchange."""
        self.settle()
        if ranks.count() > 1:
            self._settle_on(torch.device("cpu"))
            noted = torch.stack([torch.ones_like(self.scale), self.scale, self.share, self.visited.float()])
            ranks.total(noted.mul_(self._touched))
            known = noted[0] > 0
            self.scale[known], self.share[known], self.visited[known] = (
                noted[1, known],
                noted[2, known],
                noted[3, known] > 0,
            )
        self._touched.zero_()

    def settle(self) -> None:
        """Until all that steps left is written.

        Raises:
            OutputError: it can't be.
        """
        while self._unwritten:
            self._unwritten.popleft()[1].result()

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs, beside the files."""
        self.settle()
        kept = {} if isinstance(self.codes, TwoFiles) else {"codes": self.codes}
        return kept | {"scale": self.scale.cpu(), "share": self.share.cpu(), "visited": self.visited}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave."""
        self.settle()
        self._ahead.clear()
        if not isinstance(self.codes, TwoFiles):
            self.codes.copy_(state["codes"])
        self.scale = state["scale"]
        self.share, self.visited = state["share"], state["visited"]

    def _radii(self, there: Tensor, radius: float, like: Tensor) -> Tensor:
        self._settle_on(like.device)
        return column(self.share[there] * radius, like)

    def _carried(self, rows: Tensor, fresh: Tensor, like: Tensor) -> Tensor:
        """(n, C, *spatial) what cases carry, zero for those on their first visit; which these are the host knows."""
        places = (~fresh).nonzero().flatten()
        if not len(places):
            return torch.zeros_like(like)
        known = rows[places]
        codes = sent(self._read(known), like.device).to(like.dtype)
        found = codes * column(self.scale[sent(known, like.device)], like)
        if len(places) == len(rows):
            return found
        carried = torch.zeros_like(like)
        carried[sent(places, like.device)] = found
        return carried

    def _read(self, known: Tensor) -> Tensor:
        """(n, C, *spatial) int8 on the host, read ahead or now."""
        numbers = known.tolist()
        if any(not waiting.isdisjoint(numbers) for waiting, _ in self._unwritten):
            self.settle()
        ahead = [self._ahead.pop(number, None) for number in numbers]
        there = [codes for codes in ahead if codes is not None]
        return torch.stack(there) if len(there) == len(numbers) else self.codes[known]

    def _store(self, rows: Tensor, there: Tensor, delta: Tensor) -> None:
        largest = delta.detach().abs().flatten(1).amax(1).clamp(min=1e-12)
        codes = Fetched((delta / column(largest, delta) * _LEVELS).round().to(torch.int8))
        self.scale[there] = largest / _LEVELS
        self.visited[rows] = True
        self._touched[rows] = True
        self._unwritten.append((set(rows.tolist()), self._writer.submit(self._write, rows, codes)))
        while len(self._unwritten) > _UNWRITTEN:
            self._unwritten.popleft()[1].result()

    def _write(self, rows: Tensor, codes: Fetched) -> None:
        self.codes[rows] = codes.get()

    def _settle_on(self, device: torch.device) -> None:
        """Has what is known of each case lie where the inputs are."""
        if self.scale.device.type != device.type:
            self.scale, self.share = sent(self.scale, device), sent(self.share, device)


def project(delta: Tensor, radii: Tensor, norm: str) -> Tensor:
    """(N, ...) the nearest perturbation within each case's radius; `radii` broadcasts over a case's values."""
    if norm == "linf":
        return torch.minimum(torch.maximum(delta, -radii), radii)
    return delta * (radii / _norm(delta)).clamp(max=1.0)


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform in [-1, 1], drawn on the CPU."""
    return torch.rand(tuple(shape), generator=generator) * 2 - 1


def direction(noise: Tensor, norm: str) -> Tensor:
    """(N, ...) noise as a direction: as it is under linf, of length one under l2."""
    return noise if norm == "linf" else noise / _norm(noise)


def start(noise: Tensor | None, inputs: Tensor, norm: str) -> Tensor:
    """(N, C, *spatial) noise of `uniform` as a direction, where and as the inputs are."""
    assert noise is not None, "drawn by `noise`"  # noqa: S101
    return direction(sent(noise, inputs.device).to(inputs.dtype), norm)


def column(values: Tensor, like: Tensor) -> Tensor:
    """(N,) values as (N, 1, ...), to broadcast over each case of `like`."""
    return sent(values, like.device).view(-1, *(1,) * (like.ndim - 1))


def _norm(values: Tensor) -> Tensor:
    return column(values.flatten(1).norm(dim=1).clamp(min=1e-12), values)
