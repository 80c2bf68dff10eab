import errno
import json
import os

import pytest

from pipeops.errors import PipeOpsError
from pipeops.files import disk_full_in_one_line, replaced
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
