"""Importing MONAI without what it imports beside and nobody here asks for.

MONAI imports all that it has, jsonschema too, which prepares a checker of international addresses where the package
`rfc3987_syntax` is installed, as Jupyter's is: a grammar that takes seconds to build.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["monai_module"]

_NAME = "rfc3987_syntax"


class _Later(ModuleType):
    """In the grammar's place until something of it is used for the first time."""

    @staticmethod
    def is_valid_syntax(term: str, value: str) -> bool:
        """Whether a text is an address of the kind, by the package itself."""
        return bool(_grammar().is_valid_syntax(term=term, value=value))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what looks at a module and asks for nothing of it
            raise AttributeError(name)
        return getattr(_grammar(), name)


def _grammar() -> ModuleType:
    if isinstance(sys.modules.get(_NAME), _Later):
        del sys.modules[_NAME]
    return importlib.import_module(_NAME)


def monai_module(name: str) -> ModuleType:
    """A module of MONAI by its name, such as `monai.transforms`.

    Raises:
        ImportError: it or what it needs is not installed.
    """
    if not {_NAME, "jsonschema"} & set(sys.modules) and (spec := find_spec(_NAME)) is not None:
        later = sys.modules[_NAME] = _Later(_NAME)
        later.__spec__ = spec
    return importlib.import_module(name)
