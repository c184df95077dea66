"""Modalities of one examination as the channels of one case: from folders, tables and datalists, of one grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from data_helpers import KEY, codes, dicom, manifest, png, protocol
from dicom_volumes import series
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd

from medharden.data import Cohort, load_cohort
from medharden.data.formats.channels import read_parts
from medharden.data.formats.limits import Room
from medharden.data.stored.cases import stored_cases
from medharden.errors import DataError, ProtocolError
from medharden.protocol import Columns, Input, Intensity, Protocol, Splits, parse_protocol, protocol_yaml

BRATS = {"t1": "*_t1.nii.gz", "flair": "*_flair.nii.gz"}
LPS = np.diag([-1.0, -1.5, 2.0, 1.0])
SHAPE = (6, 5, 4)


def rules(channels: dict[str, str | None] | None = None, dims: int = 3, **fields: Any) -> Protocol:
    mode = (
        {"intensity": Intensity(mode="minmax")} if "intensity" not in fields else {"intensity": fields.pop("intensity")}
    )
    spec = Input(dims=dims, channels_from=channels or {}, **mode)
    return protocol(input=spec, splits=Splits(near_duplicate_bits=None, similar_bits=None), **fields)


def volume(path: Path, seed: int, *, affine: np.ndarray = LPS, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return values


def brats(root: Path, cases: int = 16) -> Path:
    """HGG/p01/p01_t1.nii.gz and so on, with a segmentation and a modality that no channel asks for."""
    for n in range(cases):
        folder = root / ("HGG" if n % 2 else "LGG") / f"p{n:02d}"
        for place, what in enumerate(("t1", "flair", "t1ce", "seg")):
            volume(folder / f"p{n:02d}_{what}.nii.gz", 10 * n + place)
    return root


def canonical(path: Path) -> np.ndarray:
    return nib.as_closest_canonical(nib.load(path)).get_fdata()


def scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


def first_case(cohort: Cohort) -> np.ndarray:
    return cohort.inputs[0]


def test_a_folder_of_modalities_is_one_case_a_patient_with_the_channels_in_their_order(tmp_path: Path) -> None:
    cohort = load_cohort(brats(tmp_path), rules(BRATS), key=KEY)
    assert len(cohort.cases) == 16
    assert cohort.record.shape == (2, *SHAPE)
    assert {"data.stacked_channels", "data.unchosen_files"} <= codes(cohort)
    told = {f.code: f.message for f in cohort.record.findings}
    assert told["data.stacked_channels"].startswith("16 cases are stacked of 2 images each as channels: t1, flair")
    assert told["data.unchosen_files"].startswith("32 images")
    expected = {
        np.stack([scaled(canonical(folder / f"{folder.name}_{what}.nii.gz")) for what in ("t1", "flair")])
        .astype(np.float32)
        .tobytes()
        for folder in tmp_path.glob("*/*")
    }
    found = {np.ascontiguousarray(cohort.inputs[n]).tobytes() for n in range(16)}
    assert all(
        min(np.abs(np.frombuffer(a, "f4") - np.frombuffer(b, "f4")).max() for b in expected) < 1e-6 for a in found
    )


def test_the_order_of_channels_is_the_protocols_and_part_of_its_digest(tmp_path: Path) -> None:
    brats(tmp_path)
    turned = dict(reversed(BRATS.items()))
    one, other = (load_cohort(tmp_path, rules(channels), key=KEY) for channels in (BRATS, turned))
    assert rules(BRATS).digest != rules(turned).digest
    by_name = {c.patient: n for n, c in enumerate(other.cases)}
    assert len(by_name) == 16
    assert one.record.preprocessing != other.record.preprocessing
    again = parse_protocol(protocol_yaml(rules(turned)), "again.yaml")
    assert [c.name for c in again.input.channels_from] == ["flair", "t1"]
    assert again.digest == rules(turned).digest


@pytest.mark.filterwarnings("ignore")  # MONAI's own
def test_stacking_is_that_of_monai(tmp_path: Path) -> None:
    files = [tmp_path / "p_t1.nii.gz", tmp_path / "p_flair.nii.gz"]
    for seed, path in enumerate(files):
        volume(path, seed)
    theirs = Compose(
        [
            LoadImaged(keys="image", image_only=True),
            EnsureChannelFirstd(keys="image"),
            Orientationd("image", axcodes="RAS"),
        ]
    )({"image": [str(path) for path in files]})["image"]
    with Room().file() as hold:
        ours = read_parts([[path] for path in files], rules(BRATS).input, hold)
    assert np.array_equal(ours.values, theirs.numpy())
    assert np.allclose(ours.affine, theirs.affine.numpy())


def test_a_datalist_lists_the_images_of_a_case_in_their_order(tmp_path: Path) -> None:
    parts: dict[str, list[dict[str, object]]] = {"training": [], "validation": [], "test": []}
    for n in range(12):
        for place, what in enumerate(("t1", "flair")):
            volume(tmp_path / "imagesTr" / f"p{n}_{what}.nii.gz", 10 * n + place)
        image = [f"imagesTr/p{n}_flair.nii.gz", f"imagesTr/p{n}_t1.nii.gz"]
        parts[list(parts)[n % 3]].append({"image": image, "label": n // 3 % 2})
    (tmp_path / "datalist.json").write_text(json.dumps(parts))
    with pytest.raises(DataError, match=r"lists up to 2 images a case, input\.channels_from of the protocol names 0"):
        load_cohort(tmp_path / "datalist.json", rules(), key=KEY)
    listed = rules({"flair": None, "t1": None})
    cohort = load_cohort(tmp_path / "datalist.json", listed, key=KEY)
    assert cohort.record.shape == (2, *SHAPE)
    assert not cohort.record.excluded
    assert "as channels: flair, t1." in next(
        f.message for f in cohort.record.findings if f.code == "data.stacked_channels"
    )
    flair = {scaled(canonical(path)).astype("f4").tobytes() for path in (tmp_path / "imagesTr").glob("*_flair*")}
    assert all(
        min(np.abs(np.frombuffer(x, "f4").reshape(SHAPE) - cohort.inputs[n][0]).max() for x in flair) < 1e-6
        for n in range(12)
    )
    named = load_cohort(tmp_path / "datalist.json", rules(BRATS), key=KEY)
    assert np.array_equal(named.inputs[0][0], cohort.inputs[0][1]), "patterns order what the list does not"
    parts["test"][0]["image"] = ["imagesTr/p2_t1.nii.gz"]
    (tmp_path / "datalist.json").write_text(json.dumps(parts))
    with pytest.raises(DataError, match="names 1 of 2 images"):
        load_cohort(tmp_path / "datalist.json", listed, key=KEY)


def test_a_table_has_a_column_for_each_channel_or_names_the_folder(tmp_path: Path) -> None:
    brats(tmp_path)
    folders = sorted(tmp_path.glob("*/*"))
    rows: list[dict[str, object]] = [
        {
            "T1": f"{f.relative_to(tmp_path)}/{f.name}_t1.nii.gz",
            "FLAIR": f"{f.relative_to(tmp_path)}/{f.name}_flair.nii.gz",
            "folder": f.relative_to(tmp_path).as_posix(),
            "label": f.parent.name,
            "patient": f.name,
        }
        for f in folders
    ]
    manifest(tmp_path, rows)
    two = {"t1": None, "flair": None}
    by_column = load_cohort(tmp_path, rules(two, columns=Columns(path=("T1", "FLAIR"))), key=KEY)
    by_folder = load_cohort(tmp_path, rules(BRATS, columns=Columns(path="folder")), key=KEY)
    assert by_column.record.shape == by_folder.record.shape == (2, *SHAPE)
    pixels = [{c.pixels for c in cohort.cases} for cohort in (by_column, by_folder)]
    assert pixels[0] == pixels[1], "the same files are the same case, however they are named"
    with pytest.raises(DataError, match=r"names one file, where input\.channels_from stacks several"):
        load_cohort(tmp_path, rules(BRATS, columns=Columns(path="T1")), key=KEY)
    with pytest.raises(DataError, match=r"columns.path names \['T2'\], which the manifest lacks"):
        load_cohort(tmp_path, rules(two, columns=Columns(path=("T1", "T2"))), key=KEY)
    rows[0]["FLAIR"] = rows[0]["T1"]
    manifest(tmp_path, rows)
    with pytest.raises(DataError, match="names one image for two channels"):
        load_cohort(tmp_path, rules(two, columns=Columns(path=("T1", "FLAIR"))), key=KEY)
    with pytest.raises(DataError, match=r"each row of the manifest names one file"):
        load_cohort(tmp_path, rules(two, columns=Columns(path="T1")), key=KEY)


def test_modalities_in_folders_of_their_own_are_told_by_the_whole_path(tmp_path: Path) -> None:
    for n in range(12):
        for what in ("t1", "flair"):
            volume(tmp_path / "ab"[n % 2] / what / f"p{n}.nii.gz", 10 * n + (what == "t1"))
    cohort = load_cohort(tmp_path, rules({"t1": "*/t1/*", "flair": "*/flair/*"}), key=KEY)
    assert len(cohort.cases) == 12


def test_a_case_without_a_modality_or_with_two_files_of_it_can_not_be_used(tmp_path: Path) -> None:
    brats(tmp_path)
    (tmp_path / "HGG" / "p01" / "p01_flair.nii.gz").unlink()
    (tmp_path / "HGG" / "p03" / "P03_T1.nii.gz").write_bytes((tmp_path / "HGG/p03/p03_t1.nii.gz").read_bytes())
    with pytest.raises(DataError) as caught:
        load_cohort(tmp_path, rules(BRATS), key=KEY)
    reasons = sorted(p.reason for p in caught.value.problems)
    assert reasons == [
        "has no file for the channel 'flair' of input.channels_from",
        "has several files for the channel 't1' of input.channels_from",
    ]
    with pytest.raises(DataError, match=r"input\.channels_from gives no patterns, which folders need"):
        load_cohort(tmp_path, rules({"t1": None, "flair": None}), key=KEY)
    with pytest.raises(DataError, match="fits the patterns of the channels 't1' and 'any'"):
        load_cohort(tmp_path, rules({"t1": "*_t1.nii.gz", "any": "*.nii.gz"}), key=KEY)
    with pytest.raises(DataError, match=r"none of the .* images fits a pattern of input\.channels_from"):
        load_cohort(tmp_path, rules({"a": "*_pd.nii", "b": "*_adc.nii"}), key=KEY)


MOVED = LPS + np.array([[0, 0, 0, 0], [0, 0, 0, 0.5], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"affine": MOVED}, "lies elsewhere than its channel 't1': their affines differ by up to 0.5"),
        ({"shape": (6, 5, 5)}, "is 6x5x5, its channel 't1' is 6x5x4"),
        ({"affine": np.diag([-1.0, -1.5, 2.5, 1.0])}, "their affines differ"),
    ],
)
def test_channels_of_another_grid_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    brats(tmp_path)
    volume(tmp_path / "HGG" / "p01" / "p01_flair.nii.gz", 5, **change)
    with pytest.raises(DataError) as caught:
        load_cohort(tmp_path, rules(BRATS), key=KEY)
    [problem] = caught.value.problems
    assert said in problem.reason
    assert "channels must be of one grid" in problem.reason


def test_pictures_are_stacked_and_colour_is_no_channel(tmp_path: Path) -> None:
    channels = {"red": "*_r.png", "green": "*_g.png", "blue": "*_b.png"}
    for n in range(12):
        for place, what in enumerate("rgb"):
            png(tmp_path / "ab"[n % 2] / f"{n}_{what}.png", 10 * n + place)
    cohort = load_cohort(tmp_path, rules(channels, dims=2, intensity=Intensity()), key=KEY)
    assert cohort.record.shape[0] == 3
    assert not np.array_equal(cohort.inputs[0][0], cohort.inputs[0][1])
    png(tmp_path / "a" / "0_g.png", 5, colour=True)
    with pytest.raises(DataError) as caught:
        load_cohort(tmp_path, rules(channels, dims=2, intensity=Intensity()), key=KEY)
    assert "its channel 'green' is in colour" in caught.value.problems[0].reason


def test_series_of_dicom_are_channels_where_their_slices_lie_in_the_same_places(tmp_path: Path) -> None:
    def examination(n: int, shift: float = 0.0) -> None:
        for place, what in enumerate(("t1", "flair")):
            folder = tmp_path / "ab"[n % 2] / f"p{n}" / what
            frames = np.random.default_rng(10 * n + place).integers(0, 900, (4, 6, 5)).astype(np.int16)
            places = np.array([[0.0, 0.0, 2.5 * k + shift * place] for k in range(4)])
            series(
                folder,
                frames,
                places,
                SeriesInstanceUID=f"1.2.{n}.{place}",
                StudyInstanceUID=f"1.3.{n}",
                PatientID=f"p{n}",
            )

    channels = {"t1": "*/t1", "flair": "*/flair"}
    for n in range(12):
        examination(n)
    cohort = load_cohort(tmp_path, rules(channels), key=KEY)
    assert len(cohort.cases) == 12
    assert cohort.record.shape == (2, 5, 6, 4)
    examination(3, shift=1.0)
    with pytest.raises(DataError) as caught:
        load_cohort(tmp_path, rules(channels), key=KEY)
    assert "its channel 'flair' has slices elsewhere than its channel 't1'" in caught.value.problems[0].reason


def test_each_channel_has_a_window_and_a_range_of_its_own(tmp_path: Path) -> None:
    for n in range(12):
        for what, scale in (("t1", 1), ("flair", 20)):
            values = scale * np.random.default_rng([n, scale]).integers(0, 1000, SHAPE)
            path = tmp_path / "ab"[n % 2] / f"{n}_{what}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(values.astype(np.int32), LPS), path)
    for intensity in (Intensity(mode="percentile", low=1, high=99), Intensity(mode="minmax")):
        cohort = load_cohort(tmp_path, rules(BRATS, intensity=intensity), key=KEY)
        means = cohort.inputs[0].reshape(2, -1).mean(axis=1)
        assert means == pytest.approx([0.5, 0.5], abs=0.15)
    window = Intensity(mode="window", low=0, high=1000)
    means = load_cohort(tmp_path, rules(BRATS, intensity=window), key=KEY).inputs[0].reshape(2, -1).mean(axis=1)
    assert means[1] > 0.9 > means[0]


def test_the_store_keeps_cases_by_all_their_files_in_the_order_of_channels(tmp_path: Path) -> None:
    data, cache = brats(tmp_path / "data"), tmp_path / "cache"
    first = load_cohort(data, rules(BRATS), key=KEY, cache=cache)
    again = load_cohort(data, rules(BRATS), key=KEY, cache=cache)
    assert all(np.array_equal(first.inputs[n], again.inputs[n]) for n in range(16))
    one, other = data / "HGG/p01/p01_t1.nii.gz", data / "HGG/p01/p01_flair.nii.gz"
    held = one.read_bytes(), other.read_bytes()
    one.write_bytes(held[1])
    other.write_bytes(held[0])
    changed = load_cohort(data, rules(BRATS), key=KEY, cache=cache)
    where = {c.case: n for n, c in enumerate(first.cases)}
    odd = [
        c.case
        for n, c in enumerate(changed.cases)
        if not np.array_equal(changed.inputs[n], first.inputs[where[c.case]])
    ]
    assert len(odd) == 1, "the exchanged case is another, and no other is"
    turned = next(n for n, c in enumerate(changed.cases) if c.case == odd[0])
    assert np.array_equal(changed.inputs[turned], first.inputs[where[odd[0]]][::-1])


def test_processes_that_decode_stack_too(tmp_path: Path) -> None:
    from medharden.data.store.worker import Decoder

    files = [tmp_path / "p_t1.nii.gz", tmp_path / "p_flair.nii.gz"]
    for seed, path in enumerate(files):
        volume(path, seed)
    decoder = Decoder(rules(BRATS).input, Room())
    try:
        made = decoder.decode([[path] for path in files])
    finally:
        decoder.close()
    assert not isinstance(made, str), made
    assert made.planes.shape == (2, *SHAPE)


def test_stored_values_of_several_files_are_not_attacked_and_said_so(tmp_path: Path) -> None:
    cohort = load_cohort(brats(tmp_path), rules(BRATS), key=KEY)
    with pytest.raises(DataError, match="is stacked of 2 images as channels, which are not written back"):
        stored_cases(tmp_path, rules(BRATS), key=KEY).stored_values(cohort.cases[0])


def test_channels_that_can_not_be_meant_are_errors_of_the_protocol() -> None:
    for channels, said in (
        ({"t1": "*_t1*"}, "names 2 to 64 channels, got 1"),
        (({"name": "a", "files": "*"}, {"name": "a", "files": "b"}), "names a channel twice"),
    ):
        with pytest.raises(ValueError, match=said):
            Input(channels_from=channels)
    with pytest.raises(ValueError, match="gives patterns for some channels and not for others"):
        Input(channels_from={"t1": "*", "flair": None})
    with pytest.raises(ValueError, match="channels_from stacks grey images"):
        Input(channels="rgb", channels_from=BRATS)
    text = protocol_yaml(rules(BRATS))
    assert text.count("*_t1.nii.gz") == 1
    with pytest.raises(ProtocolError, match="channels_from"):
        parse_protocol(text.replace("'*_t1.nii.gz'", "17"), "p.yaml")


def test_a_later_channel_that_takes_more_memory_is_read_and_the_limit_is_the_cases(tmp_path: Path) -> None:
    one, other = tmp_path / "p_t1.nii.gz", tmp_path / "p_flair.nii.gz"
    volume(one, 1, shape=(20, 20, 20))
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((20, 20, 20)), LPS), other)  # 64 bits a value
    room = Room(600_000)
    with room.file() as hold:
        image = read_parts([[one], [other]], rules(BRATS).input, hold)
    assert image.values.shape == (2, 20, 20, 20)
    assert room._free == 600_000, "what was taken is given back"
    with Room(250_000).file() as hold, pytest.raises(DataError, match=r"its channel 'flair': needs .* of memory"):
        read_parts([[one], [other]], rules(BRATS).input, hold)


def test_dicom_pictures_of_two_patients_are_no_case(tmp_path: Path) -> None:
    for n in range(12):
        for place, what in enumerate(("pa", "lat")):
            stored = np.random.default_rng(10 * n + place).integers(0, 255, (8, 8)).astype(np.uint8)
            other = "x" if n == 3 and place else ""
            dicom(tmp_path / "ab"[n % 2] / f"{n}_{what}.dcm", stored, PatientID=f"p{n}{other}")
    with pytest.raises(DataError) as caught:
        load_cohort(tmp_path, rules({"pa": "*_pa.dcm", "lat": "*_lat.dcm"}, dims=2), key=KEY)
    [problem] = caught.value.problems
    assert "is of another patient than its channel 'pa'" in problem.reason
