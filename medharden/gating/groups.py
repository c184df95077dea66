"""Cases that share a true class, or have or lack a finding: of whom each recall is, clean and under attack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medharden.protocol import Protocol
from medharden.record import CaseTable

__all__ = ["Flags", "Group", "groups"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Those of one true class, or of one state of a finding.

    Attributes:
        name: of the endpoint: `sensitivity`, `specificity`, `recall:CLASS`, or `sensitivity:FINDING`.
        keys: under which a protocol may state other limits for it, the most specific first.
        of_class: the class, where the name doesn't hold it; else empty.
        rows: (N,) who belongs to it.
        finding: index of the finding, where only its answer counts.
    """

    name: str
    keys: tuple[str, ...]
    of_class: str
    rows: Flags
    finding: int | None = None

    @property
    def title(self) -> str:
        """The name, with the class that it is of."""
        return f"{self.name} ({self.of_class})" if self.of_class else self.name

    def right(self, subject: str, cases: CaseTable) -> Flags:
        """(N,) whether a subject's clean answer is right, to the finding where it is of one."""
        if self.finding is None:
            return cases.right(subject)
        answered: Flags = cases.subjects[subject].predicted[:, self.finding] == cases.label[:, self.finding]
        return answered

    def robust(self, subject: str, cases: CaseTable) -> Flags:
        """(N,) whether that holds under every attack."""
        table = cases.subjects[subject]
        if self.finding is None or table.findings is None:
            return table.robust
        return table.findings.robust[:, self.finding]


def groups(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Group]:
    """Every class's group, or both of each finding that the protocol asks the recall of."""
    if cases.multilabel:
        yield from _of_findings(protocol, classes, cases)
        return
    for k, label in enumerate(classes):
        name = protocol.task.recall_name(classes, k)
        named = name.endswith(label)
        yield Group(name, (name, label), "" if named else label, cases.label == k)


def _of_findings(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Group]:
    asked = next(m.findings for m in protocol.endpoints.noninferiority if m.metric == "recall")
    for k, finding in enumerate(classes):
        if asked is not None and finding not in asked:
            continue
        for side, state in (("sensitivity", 1), ("specificity", 0)):
            name = f"{side}:{finding}"
            yield Group(name, (name, finding, side), "", cases.label[:, k] == state, k)
