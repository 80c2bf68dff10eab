import subprocess
import sys
import time

from pipeops.locks import alone, locked

HOLD = """
import sys, time
from pathlib import Path
from pipeops.locks import alone
with alone(Path(sys.argv[1]), "does the same"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_one_at_a_time_and_whoever_waits_says_for_whom(tmp_path, capsys):
    path = tmp_path / "new" / "job.lock"
    with alone(path, "trains") as waited:
        assert not waited
    assert list(path.parent.iterdir()) == []
    holder = hold(path)
    assert locked(path) is None
    subprocess.Popen(["sh", "-c", f"sleep 0.7; kill -9 {holder.pid}"])
    start = time.monotonic()
    with alone(path, "trains") as waited:
        assert waited
        assert time.monotonic() - start > 0.5
    said = capsys.readouterr().err
    assert said.startswith(f"waiting: process {holder.pid} on ")
    assert said.endswith(" trains; was its Snakemake killed? Best let it end\n")
    assert said.count("\n") == 1
    assert list(path.parent.iterdir()) == []
    holder.wait()


def test_a_lock_is_freed_by_its_holders_end(tmp_path):
    path = tmp_path / "job.lock"
    holder = hold(path)
    holder.communicate("end\n")
    with alone(path, "trains") as waited:
        assert not waited
