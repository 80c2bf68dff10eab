"""What is said in one line, and what keeps its traceback."""

import errno

import pytest

from pipeops.errors import errors_in_one_line


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


@pytest.mark.parametrize("error", [rust(errno.EIO), while_handling(OSError(errno.EIO, "failed"))])
def test_a_disk_that_fails_within_a_library_is_one_line(error, capsys):
    with pytest.raises(SystemExit) as end, errors_in_one_line():
        raise error
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: input/output error; the disk fails; name a place on another\n"


@pytest.mark.parametrize(
    "error", [rust(errno.ENOENT), while_handling(OSError(errno.ENOENT, "absent")), ValueError()]
)
def test_a_mistake_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)), errors_in_one_line():
        raise error
