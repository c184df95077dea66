"""The hardened model: the clean path as it came, a robust branch beside it, and the fusion of both answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.models.answers import calibrated
from medharden.models.classifier import Classifier
from medharden.models.contract import Contract
from medharden.models.findings import findings_refer, guarded_findings, mix_findings
from medharden.pinning import check_pin, pin
from medharden.protocol import Input
from medharden.record import FusionRecord

__all__ = ["Assessment", "DecisionView", "HardenedClassifier", "fuse"]


@dataclass(frozen=True)
class Assessment:
    """An answer with its referral flag.

    Attributes:
        logits: (N, K).
        referred: (N,) bool; true where a reader is told to look. Only `guarded` refers.
    """

    logits: Tensor
    referred: Tensor


class HardenedClassifier(nn.Module):
    """One module, one strict state dict: (N, C, *spatial) in [0, 1] in, (N, K) logits out.

    Of a multi-label task each column is a finding, whose logit is above 0 where its probability is above one half.

    Both paths are pinned from here on: whatever is called on whatever part of them, they stay in eval mode and no
    parameter or buffer changes. Calls that would change one do nothing or raise a ModelError; a write that Python can't
    prevent raises it at the next forward pass, or where the state is saved. A copy of the whole is pinned like it; a
    copy of one path alone is an ordinary classifier, which may be trained.

    Args:
        clean_path: the model as it came; pinned in place.
        robust_branch: a model of the same classes; pinned in place.
        fusion: how the two answers become one.
        decision_bias: (K,) added to logits before the larger one is answered; it carries the protocol's decision
            threshold, log((1-t)/t) for the positive class or for each finding, and is 0 at t = 0.5.
        multilabel: whether the columns are findings.
        contract: what it takes and answers; null where nobody said.
    """

    decision_bias: Tensor

    def __init__(
        self,
        clean_path: Classifier,
        robust_branch: Classifier,
        fusion: FusionRecord,
        decision_bias: Tensor,
        *,
        multilabel: bool = False,
        contract: Contract | None = None,
    ) -> None:
        super().__init__()
        self.multilabel = multilabel
        self.contract = contract
        self.clean_path = clean_path
        self.robust_branch = robust_branch
        self.fusion = fusion
        self.register_buffer("decision_bias", decision_bias)
        self._pin_paths()
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs, in their order.

        Raises:
            AttributeError: the model doesn't know them.
        """
        return self._known().classes

    @property
    def input(self) -> Input:
        """The view: how a file's stored values become the input that was gated on.

        Raises:
            AttributeError: the model doesn't know it.
        """
        return self._known().input

    @property
    def decision(self) -> str:
        """`argmax`, or the probability from which a class or finding is answered; `decision_bias` carries it.

        Raises:
            AttributeError: the model doesn't know it.
        """
        return self._known().decision

    def __getattr__(self, name: str) -> Any:
        """Where a property has no value, why; else as any module."""
        if name in ("classes", "input", "decision"):
            self._known()
        return super().__getattr__(name)

    def _known(self) -> Contract:
        if self.contract is None:
            raise AttributeError(
                "this model doesn't know its classes and input: they come with the run directory that "
                "`medharden harden` writes; harden again, or give a contract"
            )
        return self.contract

    def _pin_paths(self) -> None:
        pin(self.clean_path, "the clean path")
        pin(self.robust_branch, "the robust branch")
        self.__dict__["_paths"] = (self.clean_path, self.robust_branch)

    def check(self) -> None:
        """Compares every tensor of both paths with what was pinned.

        Raises:
            ModelError: one was written to, or a path was replaced.
        """
        self._check_paths()
        check_pin(self.clean_path)
        check_pin(self.robust_branch)

    def _check_paths(self) -> None:
        if torch.compiler.is_compiling():
            return
        clean, robust = self.__dict__["_paths"]
        if self._modules.get("clean_path") is not clean or self._modules.get("robust_branch") is not robust:
            raise ModelError("a path of the hardened model was replaced; its answers are no longer those tested")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes the decision bias that is there already, as the paths take their weights."""
        given = state_dict.get(prefix + "decision_bias")
        if isinstance(given, Tensor) and not torch.equal(given.to(self.decision_bias), self.decision_bias):
            raise ModelError("a hardened model is pinned: decision_bias can't be loaded with other values")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses another path in the place of one."""
        if name in ("clean_path", "robust_branch") and self._modules.get(name, value) is not value:
            raise ModelError(f"{name} can't be replaced; build a HardenedClassifier of the two paths")
        super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is pinned as this one is, but for one from `loose_copy`."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._pin_paths()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of the released answer; `mixed` returns log-probabilities, of findings log-odds."""
        self._check_paths()
        if self.fusion.mode == "guarded":  # whose logits need no branch
            return self.clean_path(inputs)  # type: ignore[no-any-return]
        return self.assess(inputs).logits

    def assess(self, inputs: Tensor) -> Assessment:
        """The released answer and, in `guarded` mode, which cases a reader is told to look at."""
        self._check_paths()
        clean = None if self.fusion.mode == "robust" else self.clean_path(inputs)
        robust = None if self.fusion.mode == "clean" else self.robust_branch(inputs)
        return fuse(clean, robust, self.fusion, self.decision_bias, multilabel=self.multilabel)

    def decision_view(self) -> nn.Module:
        """What an attacker of the released model faces: its decision, and in `guarded` mode its referral too."""
        self.check()
        if self.fusion.mode == "guarded":
            return _GuardedView(self)
        return DecisionView(self, self.decision_bias)


def fuse(
    clean: Tensor | None, robust: Tensor | None, fusion: FusionRecord, bias: Tensor, *, multilabel: bool
) -> Assessment:
    """The released answer of two paths.

    Args:
        clean: (N, K) logits of the clean path; null where the mode doesn't ask it.
        robust: (N, K) logits of the robust branch, likewise.
        fusion: how the two answers become one.
        bias: (K,) decision bias.
        multilabel: whether the columns are findings.
    """
    if clean is None or robust is None:
        (logits,) = (found for found in (clean, robust) if found is not None)
    elif fusion.mode == "guarded":
        flag = refers_findings if multilabel else refers
        return Assessment(clean, flag(clean, robust, bias, fusion))
    else:
        logits = (mix_findings if multilabel else mix)(clean, robust, fusion, bias)
    return Assessment(logits, torch.zeros_like(logits[:, 0], dtype=torch.bool))


class DecisionView(nn.Module):
    """Logits shifted by the decision threshold: the largest column is the decision, of findings each above 0."""

    refers = False
    bias: Tensor

    def __init__(self, model: nn.Module, bias: Tensor) -> None:
        """Takes a model of K classes and its (K,) decision bias."""
        super().__init__()
        self.model, self.training = model, model.training
        self.register_buffer("bias", bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, K) logits whose largest column is the decision, or each of which above 0 is a finding."""
        return self.model(inputs) + self.bias  # type: ignore[no-any-return]


class _GuardedView(nn.Module):
    """(N, K + 1) columns: class j leads only if both paths answer j and the branch supports it; else referral leads.

    Column j is min(lead of j on the clean path, lead of j on the branch, the branch's support of j above the
    threshold), and the last column, 0, stands for referral. The value is exact; its gradient is that of a soft
    minimum, so that an attacker works on all three conditions at once. Findings: see `guarded_findings`.
    """

    refers = True

    def __init__(self, model: HardenedClassifier) -> None:
        super().__init__()
        self.model, self.training = model, model.training

    def forward(self, inputs: Tensor) -> Tensor:
        model, bias = self.model, self.model.decision_bias
        clean, robust = model.clean_path(inputs), model.robust_branch(inputs)
        if model.multilabel:
            return guarded_findings(clean, robust, bias, model.fusion, log_odds(model.fusion.referral_threshold))
        slack = support(robust, bias, model.fusion) - log_odds(model.fusion.referral_threshold)
        conditions = torch.stack([_lead(clean + bias), _lead(robust + bias), slack])
        hard = conditions.min(dim=0).values
        soft = -torch.logsumexp(-conditions, dim=0)
        columns = hard.detach() + soft - soft.detach()
        return torch.cat([columns, torch.zeros_like(columns[:, :1])], dim=1)


def mix(clean: Tensor, robust: Tensor, fusion: FusionRecord, bias: Tensor) -> Tensor:
    """Log of (1-a) softmax(z_c') + a softmax(z_r'), computed in log space.

    z' are the logits calibrated about the decision threshold, see `calibrated`.

    Args:
        clean: (N, K) logits of the clean path.
        robust: (N, K) logits of the robust branch.
        fusion: weight a in (0, 1) and the two temperatures.
        bias: (K,) decision bias.

    Returns:
        (N, K) log-probabilities.
    """
    weight = torch.tensor([1 - fusion.weight, fusion.weight], dtype=clean.dtype, device=clean.device).log()
    parts = torch.stack(
        [
            calibrated(clean, fusion.clean_temperature, bias).log_softmax(1) + weight[0],
            calibrated(robust, fusion.robust_temperature, bias).log_softmax(1) + weight[1],
        ]
    )
    return torch.logsumexp(parts, dim=0)


def refers(clean: Tensor, robust: Tensor, bias: Tensor, fusion: FusionRecord) -> Tensor:
    """(N,) bool: where the paths disagree, or the branch supports the clean path's answer too weakly.

    An attacker moves the clean path at will, so its probability is no evidence; that of the branch for the released
    answer has to be moved past the threshold.

    Args:
        clean: (N, K) logits of the clean path.
        robust: (N, K) logits of the robust branch.
        bias: (K,) decision bias.
        fusion: the branch's temperature and `referral_threshold`.
    """
    answer = (clean + bias).argmax(1)
    supported = support(robust, bias, fusion).gather(1, answer[:, None]).squeeze(1)
    return (answer != (robust + bias).argmax(1)) | (supported < log_odds(fusion.referral_threshold))


def refers_findings(clean: Tensor, robust: Tensor, bias: Tensor, fusion: FusionRecord) -> Tensor:
    """(N,) bool: `refers`, where each column is a finding: the least supported answer decides."""
    return findings_refer(clean, robust, bias, fusion, log_odds(fusion.referral_threshold))


def support(robust: Tensor, bias: Tensor, fusion: FusionRecord) -> Tensor:
    """(N, K) log-odds of each class on the branch, calibrated, the decision threshold shifted to one half.

    Args:
        robust: (N, K) logits of the robust branch.
        bias: (K,) decision bias.
        fusion: the branch's temperature.
    """
    logits = (robust + bias) / fusion.robust_temperature
    others = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits - logits[:, None, :].masked_fill(others, -torch.inf).logsumexp(2)


def log_odds(probability: float) -> float:
    """log(p / (1 - p)); infinite at 0 and 1."""
    if probability in (0.0, 1.0):
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability / (1 - probability))


def _lead(logits: Tensor) -> Tensor:
    """(N, K) each column's lead over the best of the others."""
    top = logits.topk(2, dim=1)
    best, second = top.values[:, :1], top.values[:, 1:]
    others = best.expand_as(logits).scatter(1, top.indices[:, :1], second)
    return logits - others
