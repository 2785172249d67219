"""The journal: whatever happens to its file, what was kept whole comes back, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotrack.journal import Journal, Orphan
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.wording import from_json, to_json

TEXT = st.text(max_size=30)
MAYBE = st.none() | TEXT
MICROS = st.integers(0, 2**53)
HEAD = 8
"""Bytes before what a frame holds: its length and its checksum."""


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """Make any report."""
    origin = Origin(
        task_id=draw(TEXT),
        task_name=draw(TEXT),
        module=draw(TEXT),
        created_at=draw(MICROS),
        created_by=draw(MAYBE),
        priority=draw(st.none() | st.integers(-9, 9)),
        args=json.dumps(draw(st.lists(TEXT, max_size=3))),
        metadata=json.dumps(draw(st.dictionaries(TEXT, TEXT, max_size=2))),
        exact=draw(st.booleans()),
        registered=draw(st.booleans()),
    )
    stamps = st.tuples(MICROS, MICROS, MICROS)
    values = st.tuples(stamps, st.lists(TEXT, max_size=2).map(json.dumps))
    return Report(
        origin,
        draw(st.sampled_from(Witness)),
        draw(st.sampled_from(TaskStatus)),
        run_id=draw(TEXT),
        attempt=draw(st.integers(1, 9)),
        started_at=draw(st.none() | MICROS),
        duration=draw(st.none() | st.floats(0, 1e6)),
        result=draw(st.none() | TEXT.map(json.dumps)),
        error=draw(MAYBE),
        traceback=draw(MAYBE),
        patch=draw(st.none() | st.dictionaries(TEXT, values, min_size=1, max_size=3)),
    )


def report(number: int, text: str = "") -> Report:
    """Give the report of a run's end."""
    origin = Origin(task_id=str(number), task_name="shop.rows", module="shop", created_at=1)
    one = Report(origin, Witness.ENDED, TaskStatus.SUCCESS, run_id="r", result=json.dumps(text))
    one.patch = {"order": ((1, 2, 3), str(number))}
    return one


def frame(said: Any) -> bytes:
    """Give the frame that another release may have written."""
    payload = json.dumps(said).encode()
    return struct.pack(">II", len(payload), zlib.crc32(payload)) + payload


def only(folder: Path) -> Path:
    """Give the one journal in *folder*."""
    (path,) = folder.glob("*.journal")
    return path


def adopted(folder: Path) -> list[Report]:
    """Give what a new process finds in *folder*."""
    found: list[Report] = []
    for orphan in Journal(folder).adopt():
        found += rest(orphan)
        orphan.close()
    return found


def rest(orphan: Orphan) -> list[Report]:
    """Give all that can be read of a journal."""
    found: list[Report] = []
    offset = 0
    while True:
        some, after = orphan.read(offset, 2)
        found += some
        if after == offset:
            return found
        offset = after


def abandoned(folder: Path, content: bytes) -> list[Report]:
    """Give what a new process finds when a dead one left *content*."""
    folder.mkdir(exist_ok=True)
    (folder / "1-dead.journal").write_bytes(content)
    return adopted(folder)


# ── frames ──────────────────────────────────────────────────────────────────────────────────────
@given(reports())
def test_every_report_comes_back_as_it_was(one: Report) -> None:
    """Any report, with any patch, is the same after JSON."""
    assert one == from_json(json.loads(json.dumps(to_json(one))))


def test_every_field_is_written() -> None:
    """A field that is added to Report or Origin is in the journal without being listed there."""
    said = to_json(report(1))

    assert {one.name for one in fields(Report)} == set(said)
    assert {one.name for one in fields(Origin)} == set(said["origin"])


def test_reports_come_back_in_pieces_and_in_order(tmp_path: Path) -> None:
    """Reading goes on where it ended; the end gives nothing and stays."""
    journal = Journal(tmp_path)
    journal.append([report(1), report(2)])
    journal.append([report(3)])
    first, middle = journal.read(0, 2)
    second, end = journal.read(middle, 2)

    assert ([report(1), report(2)], [report(3)]) == (first, second)
    assert ([], end) == journal.read(end, 2)
    assert journal.size == end
    journal.close()


def test_a_torn_end_is_left_out_at_every_byte(tmp_path: Path) -> None:
    """Killed in the middle of a write: all frames before it come back."""
    whole = frame(to_json(report(1))) + frame(to_json(report(2)))
    last = frame(to_json(report(3)))
    found = {len(abandoned(tmp_path, whole + last[:size])) for size in range(len(last))}

    assert {2} == found
    assert 3 == len(abandoned(tmp_path, whole + last))


def test_damage_costs_the_report_that_it_hit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped byte in what a frame holds: its neighbours come back, and it is told."""
    caplog.set_level(logging.ERROR)
    frames = [frame(to_json(report(number))) for number in range(3)]
    damaged = bytearray(b"".join(frames))
    damaged[len(frames[0]) + HEAD + 20] ^= 1
    found = abandoned(tmp_path, bytes(damaged))

    assert [report(0), report(2)] == found
    assert ["damaged" in one.message for one in caplog.records] == [True]


def test_damage_anywhere_never_raises_and_never_invents(tmp_path: Path) -> None:
    """Any byte changed to anything: what comes back was written, and what was before it does."""
    frames = [frame(to_json(report(number))) for number in range(3)]
    content = b"".join(frames)
    known = [report(number) for number in range(3)]
    for position in range(len(content)):
        for change in (1, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= change
            found = abandoned(tmp_path, bytes(damaged))

            assert all(one in known for one in found), position
            assert position < len(frames[0]) or report(0) in found, position


@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 4096, b"\xff" * 4096, os.urandom(4096)])
def test_a_file_that_is_no_journal_gives_nothing(tmp_path: Path, content: bytes) -> None:
    """Emptiness, zeros of a lost power and noise are passed over."""
    assert [] == abandoned(tmp_path, content)


def test_another_release_may_say_more_and_other_things(tmp_path: Path) -> None:
    """Unknown fields are left out; a report with an unknown status or without a birth is."""
    newer = to_json(report(1)) | {"colour": "red"}
    newer["origin"] = newer["origin"] | {"planet": "Mars"}
    strange = [
        to_json(report(2)) | {"status": "PAUSED"},
        to_json(report(3)) | {"witness": 99},
        {"status": "SUCCESS"},
        {"origin": {"task_id": "x"}, "status": "SUCCESS", "witness": 4},
        {"origin": None, "status": "SUCCESS", "witness": 4},
        "a word",
        [1, 2],
        None,
    ]
    content = b"".join(frame(said) for said in [newer, *strange, to_json(report(4))])

    assert [report(1), report(4)] == abandoned(tmp_path, content)


def test_zeros_of_a_lost_power_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file grew and its end was not written: one line, and what is before it comes back."""
    frames = b"".join(frame(to_json(report(number))) for number in range(3))
    found = abandoned(tmp_path, frames + bytes(1 << 20))
    (orphan,) = Journal(tmp_path).adopt()
    orphan.read(len(frames), 10)
    orphan.remove()

    assert [report(0), report(1), report(2)] == found
    assert ["was not written to its end" in one.message for one in caplog.records] == [True] * 2
    assert [] == list(tmp_path.iterdir())


DEEP = b'{"a":' * 100_000
UNREADABLE = [
    json.dumps(to_json(report(2)) | {"status": "PAUSED"}).encode(),
    json.dumps(to_json(report(2)) | {"attempt": "a"}).encode(),
    json.dumps(to_json(report(2)) | {"started_at": 10**30}).encode(),
    json.dumps(
        to_json(report(2)) | {"origin": to_json(report(2))["origin"] | {"created_at": None}}
    ).encode(),
    DEEP,
    b"[" * 100_000,
]


@pytest.mark.parametrize("payload", UNREADABLE, ids=lambda payload: str(payload[-20:]))
def test_what_cannot_be_read_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    """A newer release's words, or damage: its neighbours come back, the file is kept and named."""
    strange = struct.pack(">II", len(payload), zlib.crc32(payload)) + payload
    content = frame(to_json(report(1))) + strange * 9 + frame(to_json(report(3)))
    (tmp_path / "1-dead.journal").write_bytes(content)
    (orphan,) = Journal(tmp_path).adopt()
    found = rest(orphan)
    orphan.remove()
    kept = tmp_path / "1-dead.unread"

    assert [report(1), report(3)] == found
    assert [kept] == list(tmp_path.iterdir())
    assert content == kept.read_bytes()
    assert [] == Journal(tmp_path).adopt()
    assert 4 == len(caplog.records), "a few lines, however much is damaged"
    assert f"in 9 places: it is kept as {kept}" in caplog.text


def test_of_what_cannot_be_read_the_newest_is_kept(tmp_path: Path) -> None:
    """A host that is damaged again and again does not fill its disk."""
    for number in range(20):
        path = tmp_path / f"{number}-dead.journal"
        path.write_bytes(b"noise")
        os.utime(path, (number, number))
        (orphan,) = Journal(tmp_path).adopt()
        orphan.read(0, 10)
        orphan.remove()

    assert {f"{number}-dead.unread" for number in range(4, 20)} == {
        one.name for one in tmp_path.iterdir()
    }


def test_a_process_keeps_what_it_cannot_read_of_its_own(tmp_path: Path) -> None:
    """The disk changed a byte: the file is kept, and the process goes on in another."""
    journal = Journal(tmp_path)
    journal.append([report(1), report(2)])
    with only(tmp_path).open("r+b") as file:
        file.seek(HEAD + 20)
        file.write(b"\0")
    found, end = journal.read(0, 10)
    cleared = journal.clear(end)
    journal.append([report(3)])
    journal.close()

    assert ([report(2)], True) == (found, cleared)
    assert [report(3)] == adopted(tmp_path)
    assert 1 == len(list(tmp_path.glob("*.unread")))


# ── bounds and disks ────────────────────────────────────────────────────────────────────────────
def test_a_full_journal_takes_the_first_ones_that_fit(tmp_path: Path) -> None:
    """No byte beyond its size; when it was cleared it takes again."""
    journal = Journal(tmp_path, max_bytes=3 * len(frame(to_json(report(1)))) + 20)
    counts = [journal.append(map(report, range(5))), journal.append([report(9)])]
    size = only(tmp_path).stat().st_size
    back, end = journal.read(0, 10)
    journal.clear(end)
    again = journal.append([report(9)])
    journal.close()

    assert ([3, 0], 1) == (counts, again)
    assert [report(0), report(1), report(2)] == back
    assert end == size


def test_a_large_report_comes_back(tmp_path: Path) -> None:
    """With the largest values that a setting allows a frame is far over a megabyte."""
    large = report(1, "x" * (16 << 20))
    journal = Journal(tmp_path)
    counts = journal.append([large, report(2)])
    journal.close()

    assert 2 == counts
    assert [large, report(2)] == adopted(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "journals")
    with pytest.raises(OSError, match="Not a directory"):
        journal.append([report(1)])

    assert (0, []) == (journal.size, journal.adopt())
    journal.close()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from aiotrack.journal import Journal
from tests.unit.test_journal import report
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
journal.append([report(0)])
limit = journal.size + journal.size // 2
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    journal.append([report(1), report(2)])
except OSError as error:
    print(type(error).__name__, journal.size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(journal.append([report(3)]))
"""


def test_a_disk_that_takes_a_part_takes_nothing(tmp_path: Path) -> None:
    """A write that ends in the middle is an error; the next one stands right behind the last."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert "OSError" == done.stdout.split()[0]
    assert "1" == done.stdout.split()[2]
    assert [report(0), report(3)] == adopted(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EAGAIN])
@pytest.mark.timeout(10)
def test_where_no_file_can_be_locked_there_is_no_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """NFS without its lock daemon, or somebody takes every file: told at once, nothing is left."""

    def failing(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", failing)
    journal = Journal(tmp_path)
    with pytest.raises(OSError) as told:
        journal.append([report(1)])
    left = list(tmp_path.iterdir())
    monkeypatch.undo()
    count = journal.append([report(2)])
    journal.close()

    assert code == told.value.errno
    assert len(left) <= (16 if code == errno.EAGAIN else 0)
    assert (1, [report(2)]) == (count, adopted(tmp_path))


def gone(folder: Path) -> None:
    """Do as somebody who tidies up."""
    shutil.rmtree(folder)


def replaced(folder: Path) -> None:
    """Put another file at the place of the one that is in use."""
    path = only(folder)
    path.unlink()
    path.write_bytes(b"")


@pytest.mark.parametrize("tidy", [lambda folder: only(folder).unlink(), gone, replaced])
@pytest.mark.parametrize("is_kept", [False, True], ids=["empty", "full"])
def test_a_file_that_was_removed_is_made_anew(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    tidy: Callable[[Path], None],
    is_kept: bool,
) -> None:
    """A cleaner of temporary files, or a task: what is kept, then and later, can be found."""
    folder = tmp_path / "journals"
    journal = Journal(folder)
    journal.append([report(1)])
    if not is_kept:
        journal.clear(journal.size)
    tidy(folder)
    journal.append([report(2)])
    known, _ = journal.read(0, 10)
    journal.append([report(3)])
    journal.close()
    first = [report(1)] if is_kept else []

    assert [*first, report(2)] == known
    assert [*first, report(2), report(3)] == adopted(folder)
    assert 1 == caplog.text.count("was removed")


def test_a_stop_finds_that_its_file_was_removed(tmp_path: Path) -> None:
    """Nothing more comes; what was kept waits for whoever adopts it all the same."""
    journal = Journal(tmp_path)
    journal.append([report(1)])
    only(tmp_path).unlink()
    journal.close()

    assert [report(1)] == adopted(tmp_path)


def test_a_file_that_was_cut_takes_nothing_more(tmp_path: Path) -> None:
    """Behind a hole nobody would read it: a fault of the disk, and another file takes the next."""
    journal = Journal(tmp_path)
    journal.append([report(1)])
    os.truncate(only(tmp_path), 0)
    with pytest.raises(OSError, match="cut"):
        journal.append([report(2)])
    with pytest.raises(OSError, match="cut"):
        journal.read(0, 10)
    journal.leave()
    journal.append([report(3)])
    journal.close()

    assert [report(3)] == adopted(tmp_path)


def test_what_cannot_be_adopted_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another account wrote it: its path is told, at the first look."""
    for number in range(3):
        (tmp_path / f"{number}-dead.journal").mkdir()  # which nobody may open, not even root
    journal = Journal(tmp_path)
    found = [journal.adopt() for _ in range(3)]
    said = [one.getMessage() for one in caplog.records]

    assert [[]] * 3 == found
    assert 1 == len(said)
    assert f"{tmp_path / '0-dead.journal'} and 2 others are not replayed" in said[0]


# ── a life of its own ───────────────────────────────────────────────────────────────────────────
def test_clear_forgets_only_what_was_read(tmp_path: Path) -> None:
    """A report that is kept between the last read and the clearing stays."""
    journal = Journal(tmp_path)
    journal.append([report(1)])
    _, end = journal.read(0, 10)
    journal.append([report(2)])
    early = journal.clear(end)
    later, end = journal.read(end, 10)
    late = journal.clear(end)
    journal.append([report(3)])
    journal.close()

    assert (False, [report(2)], True) == (early, later, late)
    assert [report(3)] == adopted(tmp_path)


def test_a_close_removes_only_an_empty_file(tmp_path: Path) -> None:
    """What is kept waits for whoever adopts it; nothing else is left in the folder."""
    empty, full, unused = Journal(tmp_path), Journal(tmp_path), Journal(tmp_path)
    empty.append([report(1)])
    empty.clear(empty.size)
    full.append([report(2)])
    for journal in (empty, full, unused):
        journal.close()

    assert [report(2)] == adopted(tmp_path)
    assert 1 == len(list(tmp_path.iterdir()))


def test_a_journal_that_is_left_waits_for_others(tmp_path: Path) -> None:
    """Left behind, it is adopted; the process goes on in another file."""
    journal = Journal(tmp_path)
    journal.append([report(1)])
    journal.leave()
    size = journal.size
    journal.append([report(2)])

    assert 0 == size
    assert [report(1)] == adopted(tmp_path)
    journal.close()


def test_only_its_owner_can_read_a_journal(tmp_path: Path) -> None:
    """Arguments and results are in it."""
    journal = Journal(tmp_path / "journals")
    journal.append([report(1)])
    journal.close()

    assert 0o600 == only(tmp_path / "journals").stat().st_mode & 0o777
    assert 0o700 == (tmp_path / "journals").stat().st_mode & 0o777


HOLDER = """
import sys
from pathlib import Path
from aiotrack.journal import Journal
from tests.unit.test_journal import report
journal = Journal(Path(sys.argv[1]))
journal.append([report(7)])
print("kept", flush=True)
sys.stdin.read()
"""


def test_a_journal_is_adopted_when_its_process_is_gone(tmp_path: Path) -> None:
    """A living process keeps its own; killed, it leaves it to exactly one of the others."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with holder:
        assert holder.stdout is not None
        assert b"kept" in holder.stdout.readline()
        heir, other = Journal(tmp_path), Journal(tmp_path)
        early = heir.adopt()
        holder.kill()
        holder.wait()
    mine: list[Orphan] = heir.adopt()
    others = other.adopt()
    kept, _ = mine[0].read(0, 10)
    mine[0].remove()

    assert ([], [], [report(7)]) == (early, others, kept)
    assert [] == list(tmp_path.iterdir())
