"""The decoded store: what is decoded once is not decoded again, and nothing but what was kept is ever used."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from command import assert_clear, medharden
from data_helpers import KEY, class_folders, png, protocol, sized

from medharden.data import load_cohort
from medharden.data.formats.limits import Room
from medharden.data.store import cache, reading, segment, wire, worker
from medharden.data.store.keeping import Store
from medharden.errors import DataError, OutputError
from medharden.protocol import Input


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files were decoded, in a list that grows."""
    decoded: list[int] = []
    made_of = reading.made_of

    def noted(image, spec):
        decoded.append(1)
        return made_of(image, spec)

    monkeypatch.setattr(reading, "made_of", noted)
    return decoded


def segments(kept: Path, kind: str = "bin") -> list[Path]:
    return sorted(kept.glob(f"*/cases-*.{kind}"))


def alike(one, other) -> None:
    assert one.record == other.record
    assert one.source == other.source
    assert one.identifiers == other.identifiers
    np.testing.assert_array_equal(one.inputs, other.inputs)


def test_a_second_command_decodes_nothing_and_gets_the_same_cohort(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    plain = load_cohort(root, protocol(), key=KEY)
    decoded = counted(monkeypatch)
    alike(load_cohort(root, protocol(), key=KEY, cache=kept), plain)
    assert len(decoded) == 20
    seen = []
    again = load_cohort(root, protocol(), key=KEY, cache=kept, progress=lambda *a: seen.append(a))
    alike(again, plain)
    assert len(decoded) == 20
    assert seen == [("read", n, 20) for n in range(1, 21)]
    assert len(segments(kept)) == 1


def test_a_case_takes_a_kilobyte_beside_its_pixels_and_a_few_while_it_is_read(tmp_path):
    taken, most = {}, {}
    for count in (50, 250):
        root, kept = class_folders(tmp_path / str(count), count // 2), tmp_path / f"cache-{count}"
        load_cohort(root, protocol(), key=KEY, cache=kept)
        tracemalloc.start()
        cohort = load_cohort(root, protocol(), key=KEY, cache=kept)
        gc.collect()
        taken[count], most[count] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(cohort.inputs) == count
    assert (taken[250] - taken[50]) / 200 < 1500  # objects for what reading knew of each would be as much again
    assert (most[250] - most[50]) / 200 < 4200  # 3600; 4600 with a path, and shapes of its own, for each


def test_changed_added_and_missing_files_are_noticed_by_what_they_hold(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    load_cohort(root, protocol(), key=KEY, cache=kept)
    changed = root / "cat" / "1.png"
    before = changed.stat()
    png(changed, 4711)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    png(root / "dog" / "new.png", 4712)
    (root / "cat" / "2.png").unlink()
    (root / "cat" / "3.png").rename(root / "cat" / "moved.png")
    decoded = counted(monkeypatch)
    now = load_cohort(root, protocol(), key=KEY, cache=kept)
    assert len(decoded) == 2
    alike(now, load_cohort(root, protocol(), key=KEY))


def test_a_store_of_another_view_or_key_is_never_used(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    load_cohort(root, protocol(), key=KEY, cache=kept)
    decoded = counted(monkeypatch)
    small = load_cohort(root, sized(6, 6), key=KEY, cache=kept)
    alike(small, load_cohort(root, sized(6, 6), key=KEY))
    load_cohort(root, protocol(), key=b"another key of 32 bytes.........", cache=kept)
    monkeypatch.setattr(cache, "_version", lambda name: "another")
    load_cohort(root, protocol(), key=KEY, cache=kept)
    assert len(decoded) == 80
    assert len(list(kept.iterdir())) == 1 + 4


def test_cases_that_are_excluded_otherwise_are_the_same_view(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    load_cohort(root, protocol(), key=KEY, cache=kept)
    decoded = counted(monkeypatch)
    load_cohort(root, protocol(input=Input(unusable="exclude")), key=KEY, cache=kept)
    assert not decoded


@pytest.mark.parametrize("torn", ["journal", "line", "data", "data gone", "journal gone"])
def test_a_torn_store_is_noticed_and_finished(tmp_path, monkeypatch, torn):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    plain = load_cohort(root, protocol(), key=KEY)
    load_cohort(root, protocol(), key=KEY, cache=kept)
    (data,), (journal,) = segments(kept), segments(kept, "jsonl")
    if torn == "journal":
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:7]))
    elif torn == "line":
        journal.write_bytes(journal.read_bytes()[:-100])
    elif torn == "data":
        os.truncate(data, data.stat().st_size // 2)
    else:
        (data if torn == "data gone" else journal).unlink()
    decoded = counted(monkeypatch)
    alike(load_cohort(root, protocol(), key=KEY, cache=kept), plain)
    assert len(decoded) == {"journal": 13, "line": 1, "data": 10, "data gone": 20, "journal gone": 20}[torn]
    alike(load_cohort(root, protocol(), key=KEY, cache=kept), plain)
    assert len(decoded) <= 20


@pytest.mark.parametrize("kind", ["bin", "jsonl"])
def test_who_writes_to_the_store_has_cases_decoded_anew_and_changes_none(tmp_path, monkeypatch, kind):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    plain = load_cohort(root, protocol(), key=KEY)
    load_cohort(root, protocol(), key=KEY, cache=kept)
    (path,) = segments(kept, kind)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    decoded = counted(monkeypatch)
    alike(load_cohort(root, protocol(), key=KEY, cache=kept), plain)
    assert len(decoded) == 1


def test_inputs_of_two_cases_that_changed_places_are_not_used(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    plain = load_cohort(root, protocol(), key=KEY)
    load_cohort(root, protocol(), key=KEY, cache=kept)
    (path,) = segments(kept)
    data, size = path.read_bytes(), path.stat().st_size // 20
    path.write_bytes(data[size : 2 * size] + data[:size] + data[2 * size :])
    decoded = counted(monkeypatch)
    alike(load_cohort(root, protocol(), key=KEY, cache=kept), plain)
    assert len(decoded) == 2


def test_lines_of_one_store_are_none_in_another(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    load_cohort(root, protocol(), key=KEY, cache=kept)
    small = load_cohort(root, sized(6, 6), key=KEY)
    folder = cache.view_folder(kept, sized(6, 6).input, KEY)
    for path in [*segments(kept), *segments(kept, "jsonl")]:
        (folder / path.name).write_bytes(path.read_bytes())
    decoded = counted(monkeypatch)
    alike(load_cohort(root, sized(6, 6), key=KEY, cache=kept), small)
    assert len(decoded) == 20


def test_a_case_altered_after_it_was_found_is_an_error_and_no_input(tmp_path):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    cohort = load_cohort(root, protocol(), key=KEY, cache=kept)
    (path,) = segments(kept)
    with path.open("r+b") as stream:
        stream.write(b"\0\0\0\0")
    assert sum(refused(cohort, row) for row in range(20)) == 1
    os.truncate(path, 10)
    with pytest.raises(DataError, match="altered or damaged"):
        cohort.batch([5])


def refused(cohort, row: int) -> bool:
    try:
        cohort.batch([row])
    except DataError as error:
        return "cache remove" in str(error)
    return False


def test_a_store_is_for_its_owner_alone(tmp_path):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    umask = os.umask(0)
    try:
        load_cohort(root, protocol(), key=KEY, cache=kept)
    finally:
        os.umask(umask)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [kept, *kept.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    (folder,) = (path for path in kept.iterdir() if path.is_dir())
    folder.chmod(0o750)
    with pytest.raises(OutputError, match=r"mode 0700.*found mode 0750"):
        load_cohort(root, protocol(), key=KEY, cache=kept)
    folder.chmod(0o700)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="must be a folder of yours"):
        load_cohort(root, protocol(), key=KEY, cache=kept)


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    load_cohort(root, protocol(), key=KEY, cache=kept)
    (path,) = segments(kept)
    path.rename(tmp_path / "away.bin")
    path.symlink_to(tmp_path / "away.bin")
    with pytest.raises(OutputError, match="can't be read"):
        load_cohort(root, protocol(), key=KEY, cache=kept)


def test_a_full_disk_and_a_read_only_cache_are_said_and_what_was_read_is_kept(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    pwrite, left = os.pwrite, [6]

    def full(handle, data, offset):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(handle, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(segment.os, "pwrite", full)
        for place in ({"cache": kept}, {"scratch": tmp_path}):
            left[0] = 6
            with pytest.raises(OutputError, match=r"No space left on device.*--cache.*TMPDIR"):
                load_cohort(root, protocol(), key=KEY, **place)
    decoded = counted(monkeypatch)
    load_cohort(root, protocol(), key=KEY, cache=kept)
    assert len(decoded) == 14
    open_ = os.open

    def read_only(path, flags, *mode, **options):
        if flags & os.O_CREAT and kept in Path(os.fspath(path)).parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return open_(path, flags, *mode, **options)

    monkeypatch.setattr(cache.os, "open", read_only)
    load_cohort(root, protocol(), key=KEY, cache=kept)
    png(root / "cat" / "new.png", 99)
    with pytest.raises(OutputError, match=r"Read-only file system.*written to"):
        load_cohort(root, protocol(), key=KEY, cache=kept)


def test_a_cache_among_the_images_is_refused(tmp_path):
    root = class_folders(tmp_path / "data")
    with pytest.raises(OutputError, match="inside the data"):
        load_cohort(root, protocol(), key=KEY, cache=root / "cache")
    assert not (root / "cache").exists()


def test_what_was_read_before_an_interrupt_is_kept(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data", 50), tmp_path / "cache"

    def stop(stage, done, total):
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_cohort(root, protocol(), key=KEY, cache=kept, progress=stop)
    decoded = counted(monkeypatch)
    load_cohort(root, protocol(), key=KEY, cache=kept)
    assert len(decoded) == 60


LOAD = """
import sys
from pathlib import Path
from data_helpers import KEY, protocol
from medharden.data import load_cohort
from medharden.data.store import reading
if sys.argv[3] == "processes":
    reading._TRIED, reading._WORTH_PROCESSES = 2, 0
root, cache = map(Path, sys.argv[1:3])
load_cohort(root, protocol(), key=KEY, cache=cache, progress=lambda *a: print(a[1], flush=True))
"""


@pytest.mark.parametrize("how", ["threads", "processes"])
def test_a_kill_while_cases_are_decoded_loses_none_of_them_and_leaves_no_process(tmp_path, monkeypatch, how):
    root, kept = class_folders(tmp_path / "data", 100), tmp_path / "cache"
    started = subprocess.Popen(
        [sys.executable, "-c", LOAD, str(root), str(kept), how],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    done = 0
    for line in started.stdout:
        done = int(line)
        if done >= 60:
            break
    children = children_of(started.pid)
    started.send_signal(signal.SIGKILL)
    started.wait()
    started.stdout.close()
    assert len(children) == (2 if how == "processes" else 0)
    deadline = time.monotonic() + 20
    while any(map(running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, children))
    decoded = counted(monkeypatch)
    alike(load_cohort(root, protocol(), key=KEY, cache=kept), load_cohort(root, protocol(), key=KEY))
    assert len(decoded) - 200 <= 200 - done


def children_of(parent: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()] + [
        int(p)
        for task in Path(f"/proc/{parent}/task").iterdir()
        if task.name != str(parent)
        for p in (task / "children").read_text().split()
    ]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_processes_read_as_threads_do(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "data", 30)
    (root / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    wanted = protocol(input=Input(unusable="exclude"))
    plain = load_cohort(root, wanted, key=KEY)
    monkeypatch.setattr(reading, "_TRIED", 3)
    monkeypatch.setattr(reading, "_WORTH_PROCESSES", 0.0)
    decoded = counted(monkeypatch)
    alike(load_cohort(root, wanted, key=KEY), plain)
    assert len(decoded) <= 3
    assert plain.record.excluded


DYING = """
import os, sys
from medharden.data.store import worker
real = worker.read_parts
def read(paths, spec, hold):
    hold.take(hold.limit)
    print("noise", flush=True)
    if "bad" in paths[0][0].name:
        os.kill(os.getpid(), 9)
    return real(paths, spec, hold)
worker.read_parts = read
worker.main()
"""


def test_a_file_that_ends_its_decoder_is_one_that_can_not_be_read_and_gives_its_memory_back(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "data", 10)
    png(root / "cat" / "bad.png", 5)
    monkeypatch.setattr(worker, "_START", DYING)
    monkeypatch.setattr(reading, "_TRIED", 1)
    monkeypatch.setattr(reading, "_WORTH_PROCESSES", -1.0)
    with pytest.raises(DataError, match="1 of 21 cases can't be used") as caught:
        load_cohort(root, protocol(), key=KEY)
    assert "ended without a word, twice" in caught.value.problems[0].reason


def test_a_decoder_imports_nothing_from_the_folder_it_is_called_in_and_knows_no_key(tmp_path, monkeypatch):
    path, told = png(tmp_path / "data" / "0.png", 1), tmp_path / "told"
    for name in ("torch", "numpy", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", "a secret of many letters")
    start = f"import os; open({str(told)!r}, 'w').write(repr(dict(os.environ))); {worker._START}"
    monkeypatch.setattr(worker, "_START", start)
    decoder = worker.Decoder(Input(), Room())
    try:
        assert decoder.decode([[path]]).planes.shape == (1, 12, 10)
        assert "a secret" not in told.read_text()
    finally:
        decoder.close()


@pytest.mark.parametrize("answer", ["pickle", "text", "too long", "more than it says", "another object", "nothing"])
def test_what_a_decoder_answers_is_data_whatever_became_of_it(tmp_path, monkeypatch, answer):
    """A decoder that a hostile file took over can't have its parent run anything, or take memory for nothing."""
    path, told = png(tmp_path / "0.png", 1), tmp_path / "told"
    program = f"cos\nsystem\n(S'touch {told}'\ntR.".encode()
    head = wire._HEAD.pack
    said = {
        "pickle": program * 9,
        "text": b"a word " * 99,
        "too long": head(2**31, 0),
        "more than it says": head(2, 2**40) + b"{}",
        "another object": head(12, 0) + b'{"planes":7}',
        "nothing": b"",
    }[answer]
    monkeypatch.setattr(worker, "_START", f"import sys; sys.stdout.buffer.write({said!r}); sys.stdout.flush()")
    decoder = worker.Decoder(Input(), Room())
    try:
        assert decoder.decode([[path]]) == "can't be read: the process that decoded it ended without a word, twice"
    finally:
        decoder.close()
    assert not told.exists()


def test_a_file_that_is_written_to_while_it_is_read_is_not_kept(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    made_of = reading.made_of

    def grows(image, spec):
        with (root / "cat" / "0.png").open("ab") as stream:
            stream.write(b"x")
        return made_of(image, spec)

    monkeypatch.setattr(reading, "made_of", grows)
    with pytest.raises(DataError, match="changed while it was read"):
        load_cohort(root, protocol(), key=KEY, cache=kept)
    monkeypatch.undo()
    (root / "cat" / "0.png").unlink()
    alike(load_cohort(root, protocol(), key=KEY, cache=kept), load_cohort(root, protocol(), key=KEY))


def test_two_commands_may_fill_one_cache_at_once(tmp_path, monkeypatch):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    load_cohort(root, protocol(), key=KEY, cache=kept)
    (one, _), two = segments(kept, "*"), tmp_path / "two"
    load_cohort(root, protocol(), key=KEY, cache=two)
    name = one.parent.name
    for path in (two / name).glob("cases-*"):
        path.rename(kept / name / path.name)
    decoded = counted(monkeypatch)
    load_cohort(root, protocol(), key=KEY, cache=kept)
    assert not decoded


def test_a_cache_is_listed_and_removed_and_nothing_else_with_it(tmp_path):
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    load_cohort(root, protocol(), key=KEY, cache=kept)
    load_cohort(root, sized(6, 6), key=KEY, cache=kept)

    def asked(*arguments: object) -> str:
        done = medharden("cache", *arguments, cwd=tmp_path)
        assert_clear(done, 0)
        return done.stdout

    stores = json.loads(asked("list", kept, "--json"))["stores"]
    assert [store["cases"] for store in stores] == [20, 20]
    assert "6x6, auto, stretch, file" in asked("list", kept)
    (kept / "notes.txt").write_text("mine")
    assert cache.remove_views(kept, (stores[0]["name"],)) == 1
    assert [view.name for view in cache.cached_views(kept)] == [stores[1]["name"]]
    with pytest.raises(OutputError, match="no store 'no-such'"):
        cache.remove_views(kept, ("no-such",))
    asked("remove", kept)
    assert {path.name for path in kept.iterdir()} == {"notes.txt", "CACHEDIR.TAG"}
    for elsewhere in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(OutputError, match="no cache of medharden"):
            cache.remove_views(elsewhere, ())


def test_an_unnamed_store_is_gone_with_its_process(tmp_path):
    with Store(None, scratch=tmp_path) as store:
        assert not store.lasting
        assert not list(tmp_path.iterdir())
