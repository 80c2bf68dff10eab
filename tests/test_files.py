import errno
import json
import os
from pathlib import Path

import pytest

from pipeops.errors import PipeOpsError
from pipeops.files import UnknownHome, disk_full_in_one_line, expanded, replaced, temporary_folder
from pipeops.hardware import cpu
from pipeops.provenance import provenance, write_json


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with pytest.raises(RuntimeError), replaced(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with replaced(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(RuntimeError), replaced(path) as temporary:
        temporary.write_text("second, half")
        raise RuntimeError
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_provenance_names_code_packages_machine_and_parameters(tmp_path):
    write_json(tmp_path / "p.json", provenance(seed=3, settings={"epochs": 1}))
    record = json.loads((tmp_path / "p.json").read_text())
    assert record["parameters"] == {"seed": 3, "settings": {"epochs": 1}}
    assert record["packages"]["torch"].startswith("2.13.0")
    assert record["cpu"]["model"]
    assert cpu()["cores"] >= 1


def test_a_full_disk_is_one_line_and_other_errors_stay_as_they_are(tmp_path):
    with (
        pytest.raises(
            PipeOpsError, match=r"no space left on the disk of .* \(\d+ MB free\); free some and run"
        ),
        disk_full_in_one_line(tmp_path / "not/yet/there"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(KeyError), disk_full_in_one_line(tmp_path):
        raise KeyError("other")
    with pytest.raises(PipeOpsError, match="as it is"), disk_full_in_one_line(tmp_path):
        raise PipeOpsError("as it is")


def test_what_a_killed_process_left_is_removed_whatever_its_number_and_kind(tmp_path):
    path, elsewhere = tmp_path / "file.txt", tmp_path / "elsewhere"
    elsewhere.mkdir()
    absent = next(number for number in range(2**22 - 1, 0, -1) if not Path(f"/proc/{number}").exists())
    left = [tmp_path / f".file.txt.{number}.tmp" for number in (os.getpid(), absent, 10**12)]
    left[0].mkdir()  # in a container every program may have this number
    left[1].symlink_to(elsewhere)
    left[2].touch()
    running = tmp_path / f".file.txt.{os.getppid()}.tmp"
    running.touch()
    (tmp_path / f".files.{os.getpid()}.tmp").mkdir()
    with replaced(path) as temporary, temporary_folder(tmp_path):
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, elsewhere, running])


def test_a_home_of_nobody_is_refused():
    assert expanded("~") == Path.home()
    with pytest.raises(UnknownHome, match="'~nobody-here/x': there is no home of that user; write the path"):
        expanded("~nobody-here/x")
