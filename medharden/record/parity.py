"""Record of whether a model was fed as its source says: the team's own pipeline against ours, on the same files."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARITY_TOLERANCE", "SourceParity"]

PARITY_TOLERANCE = 1e-4
"""Largest difference of logits at which both pipelines count as one."""


@dataclass(frozen=True)
class SourceParity:
    """What both pipelines came to.

    Attributes:
        pipeline: whose, such as `timm's create_transform`; "" where the model's file names none.
        cases: on which both answered.
        difference: largest absolute difference of logits; 0 where none answered.
        changed: cases that are answered otherwise.
        step: where it arises first; "" where it is none.
        why: why it was not shown on any case.
    """

    pipeline: str
    cases: int = 0
    difference: float = 0.0
    changed: int = 0
    step: str = ""
    why: str = ""

    @property
    def shown(self) -> bool:
        """Whether the model is fed as its source says, on the cases tried."""
        return self.cases > 0 and self.difference <= PARITY_TOLERANCE

    @property
    def severity(self) -> str:
        """Of the finding that it is: critical where a case is answered otherwise."""
        if self.shown or not self.pipeline:
            return "info"
        return "critical" if self.changed else "warning"

    @property
    def sentence(self) -> str:
        """In one sentence, for findings and report."""
        if not self.cases:
            return f"That the model was fed as its source says is not shown: {self.why}."
        on = f"{self.cases} case{'' if self.cases == 1 else 's'}, against {self.pipeline}"
        if self.shown:
            return (
                f"The model was fed as its source says: shown on {on} (largest difference of logits "
                f"{self.difference:.2g})."
            )
        return (
            f"The model was not fed as its source says: on {on}, logits differ by up to {self.difference:.2g}, "
            f"{self.changed} answered otherwise; it arises at {self.step}."
        )
