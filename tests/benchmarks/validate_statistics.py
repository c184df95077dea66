"""Error rates of every interval and test of `medharden.stats`, by enumeration and simulation.

    python tests/benchmarks/validate_statistics.py

replaces the tables of `docs/validation-of-statistics.md`, which explains them, and prints how far it is. It takes some
minutes on one core. What a cell came to is kept in `--store`, under the digest of the code that it depends on: a run
that was stopped goes on where it was, and a changed method is simulated anew. `--only grades kappa` makes these tables
and their rows of the summary. `--scale 0.1` takes a tenth of the runs;
the page is then left alone and the tables are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from validation_cells import Compute, Rows, share
from validation_tables import TABLES

import medharden.stats

PAGE = Path(__file__).resolve().parents[2] / "docs" / "validation-of-statistics.md"
STORE = Path(tempfile.gettempdir()) / "medharden-validation.jsonl"
SEED = 20250101


class Store:
    """Numbers of cells by key, each computed once from a seed of its own, and kept in a file where one is given."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._known = path, dict[str, list[float]]()
        self.noted: dict[str, dict[str, float]] = {}
        self._code = code_digest()
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                if entry["code"] == self._code:
                    self._known[entry["key"]] = entry["values"]

    def __call__(self, key: str, compute: Compute) -> list[float]:
        if key not in self._known:
            values = compute(np.random.default_rng([SEED, zlib.crc32(key.encode())]))
            self._known[key] = values
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"code": self._code, "key": key, "values": values}) + "\n")
        return self._known[key]

    def note(self, endpoint: str, where: str, error: float) -> None:
        """Counts a one-sided error in the summary."""
        self.noted.setdefault(endpoint, {})[where] = error


def code_digest() -> str:
    """Of the statistics and of what simulates them."""
    folders = (Path(medharden.stats.__file__).parent, Path(__file__).parent)
    wanted = (
        "graded_remedies",
        "many_runs",
        "simulated_cases",
        "validation_errors",
        "validation_power",
        "validation_further",
        "validation_useful",
    )
    files = [*sorted(folders[0].glob("*.py")), *(folders[1] / f"{name}.py" for name in wanted)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def markdown(rows: Rows) -> str:
    """A table whose first row is its heading."""
    lines = [" | ".join(row) for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
    return "\n".join(f"| {line} |" for line in lines)


def replaced(page: str, name: str, tables: str) -> str:
    """The page with what stands between the marks of that name replaced."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, rest = page.split(start)
    return f"{before}{start}\n{tables}\n\n{end}{rest.split(end)[1]}"


def summary(noted: dict[str, dict[str, float]]) -> Rows:
    """The largest error of each endpoint and where it was, and how many settings lie where."""
    rows = [["endpoint", "settings", "largest error", "where", ".015 to .030", "below .015"]]
    for endpoint, errors in noted.items():
        where, largest = max(errors.items(), key=lambda item: item[1])
        parts = [sum(low <= round(e, 3) <= high for e in errors.values()) for low, high in ((0.015, 0.03), (0, 0.0149))]
        rows.append([endpoint, str(len(errors)), share(largest), where, *[f"{n / len(errors):.0%}" for n in parts]])
    return rows


def kept_rows(page: str, new: Rows) -> Rows:
    """The summary with the new rows in their places; of endpoints that were not simulated now the page's stay."""
    there = page.split("<!-- summary -->\n")[1].split("<!-- end of summary -->")[0]
    lines = [line.strip("| ").split(" | ") for line in there.splitlines() if line.startswith("| ")]
    rows = {row[0]: row for row in lines[2:]} | {row[0]: row for row in new[1:]}
    return [new[0], *rows.values()]


def main() -> None:
    """Computes all tables, each cell from its own seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the runs")
    parser.add_argument("--only", choices=sorted(TABLES), nargs="+", help="these tables alone")
    parser.add_argument("--store", type=Path, default=STORE, help="where cells are kept, and taken from")
    arguments = parser.parse_args()
    cells = Store(arguments.store)
    page = PAGE.read_text(encoding="utf-8")
    made = {**TABLES, "summary": lambda cells, _: iter([kept_rows(page, summary(cells.noted))])}
    for name, make in made.items():
        if arguments.only is not None and name not in (*arguments.only, "summary"):
            continue
        begun = time.monotonic()
        tables = "\n\n".join(map(markdown, make(cells, arguments.scale)))
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
        if arguments.scale == 1.0:
            PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), name, tables), encoding="utf-8")
        else:
            print(tables)


if __name__ == "__main__":
    main()
