"""Subgroups of cases: ages in bands, rare values merged, nobody singled out."""

from __future__ import annotations

import pytest

from medharden.data import Case, group_values
from medharden.protocol import Subgroups


def cases(column: str, *values: str, patients: list[str] | None = None) -> list[Case]:
    owners = patients or [f"patient{n}" for n in range(len(values))]
    return [
        Case(f"case{n}", owner, "test", 0, f"{n}", {column: value} if value else {})
        for n, (value, owner) in enumerate(zip(values, owners, strict=True))
    ]


def groups(column: str, *values: str, patients: list[str] | None = None, name: str | None = None) -> tuple[str, ...]:
    spec = Subgroups(columns=(name or column,))
    return group_values(cases(column, *values, patients=patients), spec)[name or column]


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("39", "under 40"),
        ("39.9", "under 40"),
        ("40", "40 to 59"),
        ("045Y", "40 to 59"),
        ("060Y", "60 to 74"),
        ("75", "75 and over"),
        ("103", "75 and over"),
        ("006M", "under 40"),
        ("030W", "under 40"),
        ("700D", "under 40"),
        ("unclear", "unknown"),
        ("-3", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_age_becomes_a_band(age: str, band: str) -> None:
    assert groups("age", *[age] * 5, *["50"] * 5)[0] == band


@pytest.mark.parametrize("column", ["age", "Age", "PatientAge", "Patient Age", "age_at_scan"])
def test_a_column_that_speaks_of_an_age_never_shows_years(column: str) -> None:
    assert set(groups(column, *["51"] * 5)) == {"40 to 59"}


def test_other_columns_keep_their_numbers() -> None:
    assert set(groups("stage", *["2"] * 5)) == {"2"}


def test_values_of_fewer_than_five_patients_are_merged() -> None:
    found = groups("site", *["north"] * 5, *["south"] * 3, *["west"] * 2)
    assert found == ("north",) * 5 + ("other",) * 5


def test_many_cases_of_few_patients_are_few() -> None:
    owners = [f"n{k}" for k in range(8)] + ["s1", "s2"] * 4 + [f"w{k}" for k in range(3)]
    found = groups("site", *["north"] * 8, *["south"] * 8, *["west"] * 3, patients=owners)
    assert found == ("north",) * 8 + ("other",) * 11


def test_the_next_rarest_joins_where_the_rest_would_single_someone_out() -> None:
    found = groups("sex", *["F"] * 9, *["M"] * 7, "O")
    assert found == ("F",) * 9 + ("other",) * 8
    assert set(groups("sex", *["F"] * 9, "M")) == {"other"}


def test_a_column_is_found_whatever_its_capitals_and_an_absent_one_is_left_out() -> None:
    assert groups("Sex", *["F"] * 5, name="sex") == ("F",) * 5
    assert group_values(cases("sex", *["F"] * 5), Subgroups(columns=("site",))) == {}


def test_missing_values_are_unknown_and_odd_ones_made_printable_and_short() -> None:
    found = groups("site", *["north"] * 5, *[""] * 5, *["a\x00b" + "c" * 60] * 5)
    assert found == ("north",) * 5 + ("unknown",) * 5 + ("a b" + "c" * 37,) * 5
