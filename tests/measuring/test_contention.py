"""When a machine counts as quiet, and on which cores is measured."""

import os

import psutil
import pytest

from pipeops.errors import PipeOpsError
from pipeops.measuring import contention
from pipeops.measuring.contention import Reading, pinned, quietest_cores, running, wait_until_quiet


def test_what_others_used_is_what_the_machine_did_without_this_process():
    before = Reading(at=10.0, busy=100.0, own=5.0, stolen=1.0)
    used = before.until(Reading(at=12.0, busy=105.0, own=6.5, stolen=1.5))
    assert used.others == pytest.approx((5 - 1.5) / 2)
    assert used.stolen == pytest.approx(0.25)


def test_a_clock_that_counts_in_steps_gives_nothing_below_zero():
    before = Reading(at=10.0, busy=100.0, own=5.0, stolen=0.0)
    assert before.until(Reading(at=10.5, busy=100.5, own=5.51, stolen=0.0)).others == 0


def test_counters_grow():
    before = Reading.now()
    assert sum(range(2_000_000)) > 0
    after = Reading.now()
    assert after.at > before.at
    assert after.busy >= before.busy
    assert after.own >= before.own > 0


@pytest.fixture
def others(monkeypatch):
    """What others use at each look; the last value stays."""
    values = []
    monkeypatch.setattr(contention, "_used_now", lambda: values.pop(0) if len(values) > 1 else values[0])
    return values


def test_a_quiet_machine_is_not_waited_for(others):
    others[:] = [0.2]
    assert wait_until_quiet(others=0.5, wait=10, what="price of DE") == 0


def test_waiting_adds_up(others):
    others[:] = [2.0, 0.9, 0.5]
    waited = wait_until_quiet(others=0.5, wait=10, what="price of DE", waited=4.0)
    assert waited == pytest.approx(4.6)


def test_a_machine_that_stays_busy_is_refused_in_one_line(others):
    others[:] = [1.4]
    message = (
        r"^price of DE: the machine is too busy: after 1 s others still use 1.4 of its \d+ cores, more than "
        r"0.5 \(running: .*\); stop them and run again$"
    )
    with pytest.raises(PipeOpsError, match=message) as caught:
        wait_until_quiet(others=0.5, wait=1, what="price of DE")
    assert "\n" not in str(caught.value)


def test_what_runs_is_named_with_its_number():
    assert f" {os.getpid()}:" not in running()
    assert len(running(count=1).split(", ")) == 1
    assert any(f" {pid}:" in running(count=10**6) for pid in psutil.pids()[:3])


affinity = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")


@affinity
def test_pinning_ends():
    before = os.sched_getaffinity(0)
    [core] = quietest_cores(1)
    with pytest.raises(KeyError), pinned([core]):
        assert os.sched_getaffinity(0) == {core}
        raise KeyError
    assert os.sched_getaffinity(0) == before


@affinity
def test_more_threads_than_cores_are_not_pinned():
    assert quietest_cores(len(os.sched_getaffinity(0)) + 1) == ()
    before = os.sched_getaffinity(0)
    with pinned(()):
        assert os.sched_getaffinity(0) == before


def test_physical_cores_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(contention, "_TOPOLOGY", tmp_path)
    for core, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert contention._spread_over_physical([2, 0, 3, 1], 2) == (2, 3)
    assert contention._spread_over_physical([2, 0, 3, 1], 3) == (2, 3, 0)
    assert contention._spread_over_physical([7, 6], 2) == (7, 6)  # without a description
