"""The table 'You have, you give' of the docs: each row's lines, as they stand there, read the layout they are about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from data_helpers import KEY, manifest, png
from dicom_volumes import FRAMES, positions, series

from medharden.data.cohort import load_cohort
from medharden.protocol import parse_protocol

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"
HEAD = {
    "schema_version": 1,
    "name": "row",
    "title": "Row",
    "intended_use": "Tests",
    "threat": {"eps": 2, "unit": "1/255"},
}
LEAST = [{"metric": metric, "margin": 0.1} for metric in ("accuracy", "recall")]
AB = ("Edema", "Mass")
N = 40


def table() -> dict[str, str]:
    """First cell to the lines of the protocol."""
    part = DOCS.read_text(encoding="utf-8").partition("### You have, you give")[2].partition("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in part.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[2].strip() for row in rows[2:]}


def states(n: int) -> dict[str, object]:
    return {"Edema": ("1.0", "0.0", "-1.0", "")[n % 4], "Mass": f"{n // 2 % 2}.0"}


def pictures(root: Path, form: str) -> list[str]:
    names = [form.format(n=n, p=n // 2, c="ab"[n % 2]) for n in range(N)]
    for n, name in enumerate(names):
        png(root / name, n)
    return names


def volumes(root: Path, form: str, what: tuple[str, ...]) -> None:
    for n in range(N):
        for k, one in enumerate(what):
            path = root / form.format(n=n, what=one, c=("HGG", "LGG")[n % 2])
            path.parent.mkdir(parents=True, exist_ok=True)
            grid = np.random.default_rng(10 * n + k).integers(0, 900, (4, 4, 4)).astype(np.int16)
            nib.save(nib.Nifti1Image(grid, np.eye(4)), path)


def mimic(root: Path) -> Path:
    names = pictures(root, "files/p10/p{p:08d}/s{n:08d}/d{n}.jpg")
    ids = [{"subject_id": n // 2, "study_id": n} for n in range(N)]
    manifest(root, [row | states(n) for n, row in enumerate(ids)], "mimic-cxr-2.0.0-chexpert.csv")
    split = [{"dicom_id": Path(names[n]).stem, **ids[n], "split": "train"} for n in range(N)]
    for row in split[N // 2 :]:
        row["split"] = "validate" if int(row["subject_id"]) < 15 else "test"
    return manifest(root, split, "mimic-cxr-2.0.0-split.csv")


def chexpert(root: Path) -> Path:
    names = pictures(root, "train/patient{p:05d}/study1/view{n}_frontal.jpg")
    return manifest(root, [{"Path": f"CheXpert-v1.0-small/{x}", **states(n)} for n, x in enumerate(names)], "train.csv")


def listed(name: str, form: str, path: str, label: str, values: tuple[str, ...], **more: Callable[[int], object]):
    def made(root: Path) -> Path:
        names = pictures(root, form)
        rows = [
            {path: Path(x).name if "." in path else Path(x).stem, label: values[n % len(values)]}
            | {k: f(n) for k, f in more.items()}
            for n, x in enumerate(names)
        ]
        return manifest(root, rows, name)

    return made


def isic2018(root: Path) -> Path:
    pictures(root, "ISIC_{n:07d}.jpg")
    rows = [{"image": f"ISIC_{n:07d}", "MEL": float(n % 2), "NV": float(1 - n % 2)} for n in range(N)]
    return manifest(root, rows, "truth.csv")


def with_masks(form: str, mask: str):
    def made(root: Path) -> Path:
        for n, (one, other) in enumerate(zip(pictures(root, form), pictures(root, mask), strict=True)):
            png(root / one, n)
            png(root / other, 500 + n)
        return root

    return made


def brats(root: Path) -> Path:
    volumes(root, "{c}/Brats18_P{n}_1/Brats18_P{n}_1_{what}.nii.gz", ("t1", "t1ce", "t2", "flair", "seg"))
    return root


def datalist(root: Path, images: Callable[[int], object]) -> Path:
    volumes(root, "imagesTr/c{n}_{what}.nii.gz", ("t1", "flair"))
    cases = [{"image": images(n), "label": n % 2} for n in range(N)]
    (root / "datalist.json").write_text(json.dumps({"training": cases[:30], "test": cases[30:]}))
    return root / "datalist.json"


def ct_series(root: Path) -> Path:
    rows = []
    for n in range(N):
        frames = np.random.default_rng(n).integers(0, 900, FRAMES.shape).astype(np.int16)
        series(root / "DICOM" / f"PA{n}", frames, positions(7), uid=f"1.2.{n}", PatientID=f"P{n}")
        rows.append({"path": f"1.2.{n}", "label": "ab"[n % 2]})
    return manifest(root, rows, "labels.csv")


def hugging(root: Path) -> Path:
    manifest(
        root, [{"file_name": x, "label": "ab"[n % 2]} for n, x in enumerate(pictures(root, "{n}.png"))], "metadata.csv"
    )
    return root


FOUR = ("Edema", "Mass", "Edema|Mass", "No Finding")
WITH = {"PatientID": lambda n: n // 2}
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "MIMIC-CXR-JPG": mimic,
    "CheXpert": chexpert,
    "NIH": listed(
        "e.csv",
        "images_001/images/{n:08d}_000.png",
        "Image Index",
        "Finding Labels",
        FOUR,
        **{"Patient ID": lambda n: n},
    ),
    "PadChest": listed("p.csv", "{n}.png", "ImageID", "Labels", tuple(str(x.split("|")) for x in FOUR), **WITH),
    "RSNA": listed("stage_2_train_labels.csv", "stage_2_train_images/{n:08d}.png", "patientId", "Target", ("0", "1")),
    "ISIC 2018": isic2018,
    "HAM10000": listed(
        "HAM.csv", "ISIC_{n:07d}.jpg", "image_id", "dx", ("nv", "mel"), lesion_id=lambda n: f"HAM_{n // 2}"
    ),
    "ISIC 2020": listed(
        "t.csv", "ISIC_{n:07d}.jpg", "image_name", "target", ("0", "1"), patient_id=lambda n: f"IP_{n}"
    ),
    "COVID-19": with_masks("{c}/images/{c}-{n}.png", "{c}/masks/{c}-{n}.png"),
    "BUSI": with_masks("{c}/{c} ({n}).png", "{c}/{c} ({n})_mask.png"),
    "BraTS, one": brats,
    "BraTS, four": brats,
    "a MONAI datalist of cases": lambda root: datalist(
        root, lambda n: [f"imagesTr/c{n}_{w}.nii.gz" for w in ("t1", "flair")]
    ),
    "a MONAI datalist of NIfTI": lambda root: datalist(root, lambda n: f"imagesTr/c{n}_t1.nii.gz"),
    "a Hugging Face": hugging,
    "CT series and a spreadsheet": ct_series,
}
ELSEWHERE = ("CT series on a DICOMweb server", "what a search of a DICOMweb server")  # tests of their own


def lines(cell: str) -> dict[str, dict[str, object]]:
    """The fields that a cell's code says."""
    found: dict[str, dict[str, object]] = {}
    for code in re.findall(r"`([^`]+)`", cell):
        plain = code.replace("[...]", f"[{', '.join(AB)}]").replace(" on:", " 'on':")  # which PyYAML takes for true
        said = yaml.safe_load(plain)
        for name, value in (said if isinstance(said, dict) else {code: "mask"}).items():
            section, _, field = name.partition(".")
            if not field:
                found.setdefault(section, {}).update(value)
            elif field in ("uncertain", "missing"):
                found.setdefault(section, {}).update({field: "mask", "kind": "multilabel", "classes": list(AB)})
    return found


def test_every_row_has_a_layout():
    rows = [row for row in table() if not row.startswith(ELSEWHERE)]
    assert len(rows) == len(LAYOUTS)
    assert all(any(row.startswith(name) for name in LAYOUTS) for row in rows)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_lines_of_a_row_read_its_layout(tmp_path, name):
    cell = next(text for row, text in table().items() if row.startswith(name))
    fields = lines(cell)
    fields["splits"] = {"near_duplicate_bits": None, "similar_bits": None} | fields.get("splits", {})
    if fields.get("task", {}).get("kind") == "multilabel" or name == "PadChest":
        fields["task"] = {"kind": "multilabel", "classes": list(AB)} | fields.get("task", {})
        fields["endpoints"] = {"noninferiority": LEAST}
    spec = parse_protocol(yaml.safe_dump(HEAD | fields), "the row")
    cohort = load_cohort(LAYOUTS[name](tmp_path), spec, key=KEY)
    masked = sum(bool(case.masked) for case in cohort.cases)
    assert len(cohort.cases) == N
    assert masked == (N // 2 if name in ("MIMIC-CXR-JPG", "CheXpert") else 0)
    if name in ("MIMIC-CXR-JPG", "CheXpert", "HAM10000", "PadChest"):
        assert len({case.patient for case in cohort.cases}) == N // 2
    assert cohort.record.shape[0] == {"BraTS, four": 4, "a MONAI datalist of cases": 2}.get(name, 1)
    assert cohort.record.excluded == ()
