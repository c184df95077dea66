"""The table of codes against the code: nothing that is said to a user is without its explanation."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT
from gating_factory import protocol, records

from medharden import errors
from medharden.codes import all_codes, code_of, codes_page, steps
from medharden.errors import MedHardenError, ProtocolError
from medharden.record import Verdict

PACKAGE = ROOT / "medharden"
CODES = set(all_codes())


def test_every_finding_that_the_code_can_make_is_explained() -> None:
    said = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    made = set(re.findall(r'Finding\(\s*"([a-z]+\.[a-z_]+)"', said))
    signs = (PACKAGE / "attacks" / "soundness.py").read_text(encoding="utf-8")
    made |= {f"attack.{sign}" for sign in re.findall(r'yield \(\s*"([a-z_]+)",', signs)}
    assert len(made) > 50
    assert made - CODES == set()


def test_every_error_and_every_verdict_is_explained() -> None:
    kinds = {name for name in errors.__all__ if issubclass(getattr(errors, name), MedHardenError)}
    assert kinds - {"MedHardenError"} <= CODES
    assert {f"verdict.{verdict.lower()}" for verdict in Verdict} <= CODES


def test_every_kind_of_endpoint_that_the_gate_decides_is_explained() -> None:
    said = "\n".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "gating").glob("*.py"))
    kinds = set(re.findall(r'kind(?:: str)?\s*=\s*"([a-z_]+)"', said)) | {"robust_floor", "robust_gain", "clean_floor"}
    assert {f"endpoint.{'subgroup' if kind.startswith('subgroup') else kind}" for kind in kinds} <= CODES


def test_a_code_is_found_whatever_its_case_and_a_wrong_one_names_its_neighbours() -> None:
    assert code_of("modelerror").code == "ModelError"
    assert code_of("FAIL").code == "verdict.fail"
    with pytest.raises(ProtocolError, match=r"gate\.copies"):
        code_of("gate.copy")


def test_the_page_of_codes_says_what_the_command_says() -> None:
    """Written by `python -c "from medharden.codes import codes_page; print(codes_page(), end='')"`."""
    assert (ROOT / "docs" / "codes.md").read_text(encoding="utf-8") == codes_page()


def test_what_is_graver_comes_first_and_a_pass_asks_for_nothing() -> None:
    decision = records(400, rules=protocol(), gained=0, lost=7).decide()
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert steps(decision)[0].reason in decision.reasons
    worse = records(400, rules=protocol(), gained=0, lost=30).decide()
    assert worse.verdict is Verdict.FAIL
    assert "uses up the margin" in steps(worse)[0].reason
