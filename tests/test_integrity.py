import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from pipeops import integrity
from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.integrity import SUMS, is_whole, note_unsealed, sealed, sealed_folder, sums_of, verify
from pipeops.reading import reading


@pytest.fixture
def pair(tmp_path):
    """Two files that were written together."""
    with sealed(tmp_path / "a.csv", tmp_path / "a.json") as (csv, details):
        csv.write_text("1,2\n")
        details.write_text("{}")
    return tmp_path / "a.csv", tmp_path / "a.json"


@pytest.fixture
def folder(tmp_path):
    with sealed_folder(tmp_path / "model", last="weights") as written:
        (written / "weights").write_bytes(bytes(100))
        (written / "config").write_text("{}")
    return tmp_path / "model"


def flip(path, at=0):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_digests_are_those_that_sha256sum_checks(pair, folder):
    for sums in (sums_of(pair[0]), folder / SUMS):
        subprocess.run(["sha256sum", "--check", "--strict", sums.name], cwd=sums.parent, check=True)
    assert verify(*pair, again="x")
    assert verify(folder / "weights", folder / "config", again="x")
    assert is_whole(folder)
    assert sorted(path.name for path in folder.iterdir()) == [SUMS, "config", "weights"]


def test_a_flipped_bit_is_one_line_that_names_the_file_and_the_remedy(pair, folder):
    for path, sealed_with in ((pair[0], None), (pair[1], pair[0]), (folder / "weights", None)):
        flip(path)
        with pytest.raises(PipeOpsError) as refusal:
            verify(path, again="price again", sealed_with=sealed_with)
        said = str(refusal.value)
        assert said.startswith(f"{path}: damaged, its bytes are not those that were written; delete it")
        assert said.endswith("(price again)")
        assert "\n" not in said
    assert not is_whole(folder)


def test_a_name_that_is_damaged_in_the_digests_is_refused(pair):
    sums = sums_of(pair[0])
    sums.write_text(sums.read_text().replace("a.csv", "b.csv"))
    with pytest.raises(PipeOpsError, match=r"a\.csv\.sha256: damaged"):
        verify(pair[0], again="x")


def test_damaged_digests_are_refused_or_harm_nothing(pair):
    sums, path = sums_of(pair[0]), pair[0]
    good = sums.read_bytes()
    for at in range(len(good)):
        sums.write_bytes(good)
        flip(sums, at)
        with suppress(PipeOpsError):
            assert not verify(*pair, again="x")  # a name was hit, and its file is what it was
    sums.write_bytes(b"")
    with pytest.raises(PipeOpsError, match="damaged"):
        verify(path, again="x")


def test_the_check_comes_before_the_parser(pair):
    flip(pair[0])
    with pytest.raises(PipeOpsError, match="not those that were written"), reading(pair[0], again="x"):
        raise AssertionError("parsed")


def test_files_without_a_digest_are_read_and_those_of_ours_are_named_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(integrity, "_UNSEALED", set())
    for name in ("one", "two"):
        (tmp_path / name).write_text("foreign")
        assert not verify(tmp_path / name, again="x")
        with reading(tmp_path / name, again="x"):
            pass
    assert capsys.readouterr().err == ""
    for name in ("one", "two"):
        with reading(tmp_path / name, again="x", ours=True):
            pass
    note_unsealed(tmp_path / "three")
    assert capsys.readouterr().err == (
        f"note: {tmp_path / 'one'}: has no digest, as an earlier version wrote it; damage would not be seen\n"
    )


def test_files_of_two_runs_are_refused(pair, tmp_path, monkeypatch):
    """A kill between the moves of files that belong together."""

    def killed(self, target):
        if target == pair[1]:
            raise KeyboardInterrupt
        return rename(self, target)

    rename = type(tmp_path).replace
    monkeypatch.setattr(type(tmp_path), "replace", killed)
    with pytest.raises(KeyboardInterrupt), sealed(*pair) as (csv, details):
        csv.write_text("3,4\n")
        details.write_text("[]")
    assert (pair[0].read_text(), pair[1].read_text()) == ("3,4\n", "{}")
    with pytest.raises(PipeOpsError, match=r"a\.csv: damaged"):
        verify(*pair, again="x")


def test_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, type(tmp_path).replace

    def synced(descriptor):
        events.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        fsync(descriptor)

    def renamed(self, target):
        events.append(f"rename {target}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(type(tmp_path), "replace", renamed)
    with replaced(tmp_path / "file") as temporary:
        temporary.write_text("x")
    assert events == [f"sync {temporary}", f"rename {tmp_path / 'file'}", f"sync {tmp_path}"]
    events.clear()
    with sealed_folder(tmp_path / "model", last="b") as folder:
        for name in ("b", "a"):
            (folder / name).write_text(name)
    moved = [event for event in events if event.startswith("rename") and "model/.files" not in event]
    assert moved == [f"rename {tmp_path / 'model' / name}" for name in (SUMS, "a", "b")]
    assert {f"sync {folder / 'a'}", f"sync {folder / 'b'}"} <= set(events[: events.index(moved[0])])
    assert events[-1] == f"sync {tmp_path / 'model'}"


def test_a_file_that_tells_whose_folder_it_is_comes_first(tmp_path, monkeypatch):
    moved, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, to: (moved.append(to.name), replace(path, to)))
    with sealed_folder(tmp_path / "model", first="c", last="a") as folder:
        for name in ("a", "b", "c"):
            (folder / name).write_text(name)
    assert moved[1:] == ["c", SUMS, "b", "a"]  # after the digests got their name


def test_what_killed_processes_left_is_removed_and_that_of_running_ones_is_not(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getppid()):
        (tmp_path / f".file.{pid}.tmp").write_text("half")
    (tmp_path / f".other.{ended.pid}.tmp").write_text("half")
    with replaced(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"file", f".file.{os.getppid()}.tmp", f".other.{ended.pid}.tmp"}
