"""medharden: adversarial hardening of medical image classifiers at no clean loss, with the evidence for it."""

__version__ = "0.1.0"
