"""MONAI is imported without the grammar that jsonschema would build, which is there once an address is checked."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("rfc3987_syntax", reason="jsonschema has no grammar of addresses here")

CODE = """
import sys
from medharden.monai_import import monai_module
monai_module("monai.bundle")
assert "lark" not in sys.modules, "the grammar was built"
from jsonschema import FormatChecker
for text, good in (("http://a.b/c", True), ("no address at all", False)):
    assert FormatChecker().conforms(text, "iri") == good, text
assert "lark" in sys.modules
import rfc3987_syntax
assert rfc3987_syntax.parse(term="iri", value="http://a.b/c") is not None
"""


def test_the_grammar_of_addresses_is_built_when_one_is_checked_and_not_before() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
