"""Who is the same patient: one form for every way in which an identifier is written, from rule to records."""

from __future__ import annotations

import csv
import os
import unicodedata
from pathlib import Path

import pytest
from data_helpers import KEY, codes, ct_folder, listed, manifest, png, protocol
from hypothesis import given, settings
from hypothesis import strategies as st

from medharden.data import load_cohort, patient_identity, pseudonym
from medharden.data.checks.identity import likeness, name_patients
from medharden.errors import DataError
from medharden.protocol import Input, Patients, Splits

SAME = {
    "numbers": ["17", "0017", "17.0", "17.00", "17,0", "17.", "+17", "1.7e1", "1.7E+01", "170e-1", "000017", "1.70E01"],
    "digits of other kinds": [
        "17",
        "\uff11\uff17",
        "\u0661\u0667",
        "\u00b9\u2077",
        "\u2460\u2466",
        "\U0001d7cf\U0001d7d5",
    ],
    "blanks": ["P17", " P17", "P17\t", "P 17", "P\u00a017", "P\u300017", "\u2800P17", "P17\u2009", "\nP17\r"],
    "what is not seen": [
        "P17",
        *(
            f"P{c}17"
            for c in "\u200b\u200c\u200d\u200e\u200f\ufeff\u00ad\u2060\u034f\u061c\u115f\u180e\u202a\u202e\u2066"
        ),
        *(f"P17{c}" for c in "\u2069\ufe0f\ufe00\u3164\uffa0\x00\x1b\x7f\x85\U000e0041\U000e0100"),
    ],
    "capitals": ["Stra\u00dfe 1", "STRASSE1", "strasse 1", "Stra\u1e9ee1", "\uff33trasse 1"],
    "composed or not": ["\u00e91", "e\u03011", "\u00c91", "E\u03011", "e\u200b\u03011"],
    "forms for compatibility": ["\ufb01n1", "fin1", "FIN1", "\uff26\uff29\uff2e1"],
    "dashes": ["1-7", "1\u20137", "1\u20147", "1\u22127", "1\u20117", "1\uff0d7", "1\ufe637"],
    "what spreadsheets put around": ["0017", "'0017", '="0017"', '"0017"', "\u201c17\u201d"],
    "powers of ten": ["100000", "1e5", "1E+05", "100000.0", "1.0e5", "0.1e6"],
    "very large": ["1e999999", "10e999998", "1.0E999999"],
    "no integers": ["17.5", "17,5", "17.50", "0017.5", "175e-1"],
}
NONE = (
    "", " ", "\u200b", "-", "--", "\u2013", "?", "...", "nan", "NaN", "None", "NULL", "(null)", "n/a", "N.A.", "#N/A",
    "<NA>", "NA", "unknown", "UNKNOWN", "Unk", "Anonymous", "ANONYMOUS^", "anonymized", "Anonymised",
    "Anonymous Patient", "not available", "missing", "-1", "-1.0", "\uff2e\uff21\uff2e", "nil", "Redacted",
    "de-identified", '""',
)  # fmt: skip
APART = [
    ("P17", "P18"), ("P17", "Q17"), ("17", "117"), ("17", "170"), ("17", "-17"), ("17", "17a"), ("A", "\u0410"),
    ("O1", "01"), ("P17", "P017"), ("1.7", "17"), ("1-11", "11-1"), ("e5", "1e5"), ("m\u00fcller", "muller"),
    ("nana", "nan"), ("10", "1e0"),
]  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_one_identifier_has_one_form_in_whatever_way_it_is_written(kind: str) -> None:
    assert len({patient_identity(text) for text in SAME[kind]}) == 1
    assert patient_identity(SAME[kind][0])


@pytest.mark.parametrize("text", NONE)
def test_a_word_for_none_names_nobody(text: str) -> None:
    assert patient_identity(text) == ""


@pytest.mark.parametrize(("one", "other"), APART)
def test_identifiers_that_differ_in_letters_or_digits_are_two(one: str, other: str) -> None:
    assert patient_identity(one) != patient_identity(other)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("P017", "P17", True), ("P-17", "P17", True), ("P_17", "P/17", True), ("A17", "\u041017", True),
        ("O1", "01", True), ("M\u00fcller", "Muller", True), ("\u0392\u0391", "BA", True), ("lO7", "107", True),
        ("1-11", "11-1", False), ("1-11", "111", False), ("P17", "P18", False), ("P17", "Q17", False),
        ("1_11", "1-11", True), ("P100", "P1", False),
    ],
)  # fmt: skip
def test_what_may_be_one_person_is_told_from_what_is_not(one: str, other: str, alike: bool) -> None:
    same = likeness(patient_identity(one)) == likeness(patient_identity(other))
    assert same is alike
    assert len(name_patients([(one,), (other,)]).alike()) == int(alike)


UNSEEN = st.text("\u200b\u200e\ufeff\u00ad\u2060\ufe0f\u202e \t\u00a0\u3000", max_size=3)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """An identifier of small letters and digits, and a way in which it may be written."""
    core = draw(st.text("abcxyz0123456789", min_size=1, max_size=8))
    if core.isdigit():
        core = str(int(core) + 1)
        form = draw(st.sampled_from(["{0}", "000{0}", "{0}.0", "+{0}", "{0},00", "{0}.", "{0}e0", "{0}0e-1"]))
        written = form.format(core)
    else:
        written = core
    if draw(st.booleans()):
        written = written.upper()
    if draw(st.booleans()):
        written = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in written)
    if draw(st.booleans()):
        written = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"])), written)
    return core, "".join(draw(UNSEEN) + c for c in written) + draw(UNSEEN)


@settings(max_examples=200, deadline=None)
@given(spellings(), spellings())
def test_any_mix_of_spellings_is_one_patient_and_other_letters_or_digits_are_another(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    same = {patient_identity(one[0]), patient_identity(one[1])}
    assert len(same) == 1
    both = [patient_identity(core) for core, _ in (one, other)]
    if one[0] != other[0] and all(both) and not any(_is_a_power(core) for core in (one[0], other[0])):
        assert both[0] != both[1]


def _is_a_power(text: str) -> bool:
    """Hypothesis finds `1e2`, which is a number."""
    return "e" in text


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=12))
def test_the_form_of_a_form_is_itself(text: str) -> None:
    once = patient_identity(text)
    assert patient_identity(once) == once


def test_zero_names_a_patient_only_where_patients_are_numbered_from_zero() -> None:
    assert name_patients([("0",), ("1",), ("0.0",), ("2",)]).identities == ("0", "1", "0", "2")
    other = name_patients([("0",), ("10000032",), ("000",), ("P1",)])
    assert (other.identities, other.placeholders, other.named) == (("", "10000032", "", "p1"), 2, 2)


def test_the_header_counts_where_the_manifest_says_a_word_for_none() -> None:
    found = name_patients([("nan", "H 7"), ("M1", "H7"), ("", "h7"), ("unknown", ""), ("", "")])
    assert found.identities == ("h7", "m1", "h7", "", "")
    assert (found.placeholders, found.respelt) == (1, 1)
    assert found.groups[0] == found.groups[2] == "H 7"


# --- from the data's files to splits, pseudonyms and findings


def rows(folder: Path, patients: list[str], splits: list[str] | None = None) -> Path:
    given_splits = {} if splits is None else {"split": lambda k: splits[k]}
    return manifest(folder, listed(folder, len(patients), patient=lambda k: patients[k], **given_splits))


WAYS = ["0017", "17", "17.0", "1.7e1", "+17", "\uff11\uff17", "1\u200b7", " 1 7"]


def test_one_patient_in_eight_spellings_stays_in_one_split_under_one_pseudonym_and_is_counted(tmp_path: Path) -> None:
    others = [f"Q{k}" for k in range(24)]
    cohort = load_cohort(
        rows(tmp_path, [p for k in range(8) for p in (WAYS[k], *others[3 * k : 3 * k + 3])]), protocol(), key=KEY
    )
    mine = [c for c in cohort.cases if c.patient == pseudonym(KEY, "patient", patient_identity("17"))]
    assert len(mine) == 8
    assert len({c.split for c in mine}) == 1
    [finding] = [f for f in cohort.record.findings if f.code == "data.patient_spellings"]
    assert finding.message.startswith("1 patients are written in more than one way")
    assert not any(way in finding.message for way in WAYS)


@pytest.mark.parametrize("way", WAYS[1:])
def test_one_patient_spelt_otherwise_in_two_given_splits_is_refused_by_pseudonym(tmp_path: Path, way: str) -> None:
    splits = ["train", "train", "val", "val", "test", "test"] * 3
    patients = [f"Q{k}" for k in range(18)]
    patients[0], patients[4] = "0017", way
    with pytest.raises(
        DataError, match=r"1 pairs of cases(.|\n)*the same patient(.|\n)*written in more than one way"
    ) as caught:
        load_cohort(rows(tmp_path, patients, splits), protocol(), key=KEY)
    assert "0017" not in str(caught.value)
    assert caught.value.problems[0].case == pseudonym(KEY, "case", "img/0.png")


def test_a_header_and_a_manifest_are_read_by_the_same_rule(tmp_path: Path) -> None:
    ct_folder(tmp_path, PatientID=lambda n: f"{'pP'[n % 2]}-{n // 2}{' ' * (n % 2)}x")
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert len({c.patient for c in cohort.cases}) == 12
    assert "data.patient_spellings" in codes(cohort)


@pytest.mark.parametrize("word", ["ANONYMOUS", "0", "nan", "-"])
def test_one_placeholder_for_all_cases_names_nobody_and_is_told(tmp_path: Path, word: str) -> None:
    ct_folder(tmp_path, PatientID=lambda n: word)
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert (cohort.record.grouped_by, cohort.record.unnamed) == ("case", 24)
    messages = {f.code: f.message for f in cohort.record.findings}
    assert "INCONCLUSIVE at best" in messages["data.no_patients"]
    assert messages["data.patient_placeholders"].startswith("24 of 24 cases have for their patient a word")


def test_one_patient_for_all_cases_is_an_error_that_says_so(tmp_path: Path) -> None:
    ct_folder(tmp_path, PatientID=lambda n: "HOSPITAL-TEST")
    with pytest.raises(DataError, match="all 24 cases name one and the same patient") as caught:
        load_cohort(tmp_path, protocol(), key=KEY)
    assert "HOSPITAL" not in str(caught.value)


def test_one_patient_for_very_many_cases_is_a_finding_and_told_where_a_split_stays_empty(tmp_path: Path) -> None:
    cohort = load_cohort(rows(tmp_path, ["X"] * 10 + [f"Q{k}" for k in range(30)]), protocol(), key=KEY)
    messages = {f.code: f.message for f in cohort.record.findings}
    assert messages["data.one_patient"].startswith("One patient identifier stands for 10 of 40 cases")
    few = tmp_path / "few"
    with pytest.raises(DataError, match=r"every split needs cases(.|\n)*stands for 30 of 32 cases"):
        load_cohort(rows(few, ["X"] * 30 + ["Q1", "Q2"]), protocol(), key=KEY)


def test_the_statement_that_each_case_is_a_patient_changes_what_is_said_of_nameless_data(tmp_path: Path) -> None:
    stated = protocol(splits=Splits(patients=Patients(unit="each_case", reason="One image a person.")))
    path = rows(tmp_path, ["", *(f"Q{k}" for k in range(19))])
    for rules, said in ((protocol(), "INCONCLUSIVE at best"), (stated, "as splits.patients of the protocol states")):
        cohort = load_cohort(path, rules, key=KEY)
        [finding] = [f for f in cohort.record.findings if f.code == "data.missing_patients"]
        assert said in finding.message
        assert cohort.record.unnamed == 1


def test_identifiers_that_may_be_one_persons_are_kept_together_and_told_by_pseudonym(tmp_path: Path) -> None:
    patients = [f"Q{k}" for k in range(40)]
    patients[0], patients[20] = "A-7", "\u0410007"
    for seed in range(4):
        cohort = load_cohort(rows(tmp_path, patients), protocol(seed=seed), key=KEY)
        mine = [c for c in cohort.cases if c.case in {pseudonym(KEY, "case", f"img/{n}.png") for n in (0, 20)}]
        assert len({c.patient for c in mine}) == 2
        assert len({c.split for c in mine}) == 1
    [finding] = [f for f in cohort.record.findings if f.code == "data.patients_alike"]
    assert finding.message.startswith("1 sets of patient identifiers")
    assert "different splits" not in finding.message
    given_splits = [("train", "val", "test", "test")[k // 2 % 4] for k in range(40)]
    given_splits[20] = "test"
    cohort = load_cohort(rows(tmp_path, patients, given_splits), protocol(), key=KEY)
    [finding] = [f for f in cohort.record.findings if f.code == "data.patients_alike"]
    assert f"{pseudonym(KEY, 'case', 'img/0.png')} (train) and" in finding.message
    assert "A-7" not in finding.message


def test_a_header_that_joins_what_the_manifest_parts_is_told_by_pseudonym(tmp_path: Path) -> None:
    ct_folder(tmp_path, PatientID=lambda n: f"H{n // 2}" if n < 4 else f"m{n}")
    table = [
        {
            "path": f"{'ab'[n % 2]}/{n}.dcm",
            "label": "ab"[n % 2],
            "patient": f"M{n}",
            "split": ("train", "test", "val")[n % 3],
        }
        for n in range(24)
    ]
    cohort = load_cohort(manifest(tmp_path, table), protocol(), key=KEY)
    [finding] = [f for f in cohort.record.findings if f.code == "data.patients_disputed"]
    assert finding.message.startswith("2 patients by the headers of their files are several by the manifest")
    assert (
        f"{pseudonym(KEY, 'case', 'a/0.dcm')} (train) and {pseudonym(KEY, 'case', 'b/1.dcm')} (test)" in finding.message
    )
    assert "H0" not in finding.message
    assert len({c.patient for c in cohort.cases}) == 24


def test_identifiers_written_in_one_way_are_split_as_ever(tmp_path: Path) -> None:
    """Splits are drawn by the identifier as written, so that runs that are on record can be made again."""
    before = load_cohort(rows(tmp_path, [f"Q{k // 2}" for k in range(40)]), protocol(), key=KEY)
    mixed = [f"{'qQ'[k % 2]}{k // 2}{' ' * (k % 2)}" for k in range(40)]
    after = load_cohort(rows(tmp_path, mixed), protocol(), key=KEY)
    assert [c.split for c in before.cases] == [c.split for c in after.cases]
    assert [c.patient for c in before.cases] == [c.patient for c in after.cases]


def test_what_identifies_a_patient_is_looked_for_in_outputs_in_its_one_form_too(tmp_path: Path) -> None:
    cohort = load_cohort(rows(tmp_path, [f"\uff30-{k:02d}\u200b-TOTENHAM" for k in range(20)]), protocol(), key=KEY)
    assert "p-07-totenham" in cohort.identifiers["identifier"]


# --- one file is one case


def twice(root: Path, other: str, **columns: object) -> Path:
    made = listed(root, 20, patient=lambda k: f"Q{k}", split=lambda k: ("train", "val", "test", "test")[k // 2 % 4])
    return manifest(root, [*made, made[0] | {"path": other} | columns])


@pytest.mark.parametrize("other", ["img/0.png", "./img/0.png", "img//0.png", "img/./0.png", "img\\0.png"])
def test_a_file_listed_twice_counts_once(tmp_path: Path, other: str) -> None:
    cohort = load_cohort(twice(tmp_path, other), protocol(), key=KEY)
    assert (len(cohort.cases), "data.repeated_rows" in codes(cohort)) == (20, True)
    [again] = cohort.record.excluded
    assert (again.reason, again.repeated, cohort.record.lost) == ("is listed twice", True, ())


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_under_a_second_name_counts_once_and_the_first_is_named(tmp_path: Path, link: object) -> None:
    png(tmp_path / "img" / "0.png", 0)
    link(tmp_path / "img" / "0.png", tmp_path / "img" / "again.png")
    cohort = load_cohort(twice(tmp_path, "img/again.png"), protocol(), key=KEY)
    [again] = cohort.record.excluded
    assert again.reason == f"is listed twice, as {pseudonym(KEY, 'case', 'img/0.png')} too"


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [("label", "b", "labels"), ("patient", "other", "patients"), ("split", "test", "splits")],
)
def test_rows_that_contradict_each_other_on_a_file_are_all_left_out(
    tmp_path: Path, column: str, value: str, what: str
) -> None:
    path = twice(tmp_path, "./img/0.png", **{column: value})
    with pytest.raises(DataError, match=f"is listed 2 times, with different {what}") as caught:
        load_cohort(path, protocol(), key=KEY)
    assert len(caught.value.problems) == 2
    cohort = load_cohort(path, protocol(input=Input(unusable="exclude")), key=KEY)
    assert pseudonym(KEY, "case", "img/0.png") not in {c.case for c in cohort.cases}


def test_a_patient_spelt_otherwise_is_no_contradiction_and_a_named_one_is_kept(tmp_path: Path) -> None:
    path = twice(tmp_path, "img/0.png", patient=" q0")
    assert len(load_cohort(path, protocol(input=Input(unusable="exclude")), key=KEY).cases) == 20
    with path.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    table[0]["patient"] = "unknown"
    cohort = load_cohort(manifest(tmp_path, table), protocol(input=Input(unusable="exclude")), key=KEY)
    assert cohort.record.unnamed == 0
