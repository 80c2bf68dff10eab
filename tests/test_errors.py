"""What is said in one line, and what keeps its traceback."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeops.errors import PipeOpsError, errors_in_one_line, of_system


def rust(number):
    return RuntimeError(f"Error while serializing: I/O error: whatever (os error {number})")


def while_handling(first):
    try:
        try:
            raise first
        except OSError:
            raise AttributeError("'Stream' object has no attribute 'pos'")  # noqa: B904 - as libraries do
    except AttributeError as error:
        return error


def test_a_file_that_may_not_be_so_large_is_one_line(capsys):
    with pytest.raises(SystemExit), errors_in_one_line():
        raise rust(errno.EFBIG)
    assert capsys.readouterr().err == "error: file too large; raise the limit (ulimit -f) and run again\n"


@pytest.mark.parametrize("error", [rust(errno.EIO), while_handling(OSError(errno.EIO, "failed"))])
def test_a_disk_that_fails_within_a_library_is_one_line(error, capsys):
    with pytest.raises(SystemExit) as end, errors_in_one_line():
        raise error
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: input/output error; the disk fails; name a place on another\n"


@pytest.mark.parametrize(("where", "said"), [("", ""), (' at path "a/b"', "a/b: ")])
def test_a_library_that_may_not_write_is_one_line(where, said, capsys):
    with pytest.raises(SystemExit), errors_in_one_line():
        raise RuntimeError(f"{rust(errno.EACCES)}{where}")
    assert capsys.readouterr().err == (
        f"error: {said}permission denied; change its permissions, or name another\n"
    )


@pytest.mark.parametrize(
    "error", [rust(errno.ENOENT), while_handling(OSError(errno.ENOENT, "absent")), ValueError()]
)
def test_a_mistake_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)), errors_in_one_line():
        raise error


def test_the_boundary_says_what_the_system_says_and_leaves_mistakes_alone(tmp_path, capsys):
    for raised, said in (
        (
            PermissionError(13, "x", "f"),
            "error: f: permission denied; change its permissions, or name another",
        ),
        (IsADirectoryError(21, "x", "f"), "error: f: is a directory; name a file"),
        (OSError(27, "x", "f"), "error: f: file too large; raise the limit (ulimit -f) and run again"),
        (FileExistsError(17, "x", "f"), "error: f: file exists; delete it, or name another"),
        (MemoryError(), "error: out of memory; lower batch_size, max_length or the number of examples"),
        (PipeOpsError("as it is"), "error: as it is"),
    ):
        with pytest.raises(SystemExit) as stop, errors_in_one_line(tmp_path / "log"):
            raise raised
        assert stop.value.code == 1
        assert capsys.readouterr().err == f"{said}\n" == (tmp_path / "log").read_text()
    for mistake in (KeyError("x"), OSError("no number"), ValueError("x")):
        with pytest.raises(type(mistake)), errors_in_one_line():
            raise mistake
    assert of_system(OSError("no number")) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_standard_output_that_is_full_is_said():
    program = "from pipeops import cli; cli.app = lambda: print('a report'); cli.main()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = "error: standard output: no space left on device; free some and run again\n"
    assert (ended.returncode, ended.stderr) == (1, said)
