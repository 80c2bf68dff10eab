"""Whether the machine is quiet enough to measure time on, and which cores a measurement runs on.

What other processes compute, and the hypervisor gives to other machines, slows a measurement down; a run of O
beside it shows that only in part, since models suffer differently from it.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from pipeops.errors import PipeOpsError

_SAMPLE_SECONDS = 0.3
"""How long the machine is watched before it is called quiet. The system counts in steps of 0.01 s."""
_TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Usage:
    """What computed beside this process, in cores: 1.5 is one core and half of another."""

    others: float
    """Other processes of this machine."""
    stolen: float
    """Given to other virtual machines by the hypervisor, where it says so."""


@dataclass(frozen=True)
class Reading:
    """Counters of CPU time at one moment, in seconds since the machine started."""

    at: float
    busy: float
    own: float
    stolen: float

    @classmethod
    def now(cls) -> Self:
        """Read the counters."""
        system, own = psutil.cpu_times(), psutil.Process().cpu_times()
        # On Linux `user` holds the time of guests too.
        busy = sum(getattr(system, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq"))
        return cls(time.perf_counter(), busy, own.user + own.system, getattr(system, "steal", 0.0))

    def until(self, later: Self) -> Usage:
        """What others used between this reading and a later one."""
        seconds = max(later.at - self.at, 1e-9)
        others = (later.busy - self.busy) - (later.own - self.own)
        return Usage(max(others, 0.0) / seconds, (later.stolen - self.stolen) / seconds)


def wait_until_quiet(*, others: float, wait: float, what: str, waited: float = 0.0) -> float:
    """Return once other processes use no more than ``others`` cores.

    Args:
        others: cores.
        wait: longest wait in seconds, that of earlier calls included.
        what: what waits, for the message.
        waited: seconds that earlier calls waited.

    Returns:
        Seconds waited, earlier calls included; 0 where the machine was quiet at once.

    Raises:
        PipeOpsError: the machine did not become quiet; it says what was running.
    """
    while (used := _used_now()) > others:
        waited += _SAMPLE_SECONDS
        if waited > wait:
            raise PipeOpsError(
                f"{what}: the machine is too busy: after {waited:.0f} s others still use {used:.1f} of its "
                f"{os.cpu_count()} cores, more than {others:g} ({running()}); stop them and run again"
            )
    return waited


def _used_now() -> float:
    before = Reading.now()
    time.sleep(_SAMPLE_SECONDS)
    return before.until(Reading.now()).others


def running(count: int = 3) -> str:
    """Name the processes that use the CPU most right now, this one left out."""
    processes = [process for process in psutil.process_iter(["name"]) if process.pid != os.getpid()]
    for process in processes:
        _percent(process)
    time.sleep(_SAMPLE_SECONDS)
    busiest = sorted(((_percent(process), process) for process in processes), key=lambda pair: -pair[0])
    named = [f"{process.info['name']} {process.pid}: {percent:.0f}%" for percent, process in busiest[:count]]
    return "running: " + ", ".join(named) if named else "nothing that can be named"


def _percent(process: psutil.Process) -> float:
    try:
        return process.cpu_percent()
    except psutil.Error:  # ended meanwhile, or not ours to look at
        return 0.0


def quietest_cores(count: int) -> tuple[int, ...]:
    """Choose cores for a measurement, one per thread: the least used, of different physical cores first.

    Returns:
        Their numbers; empty where the system does not let a process choose, or has too few.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < count:
        return ()
    before = psutil.cpu_times(percpu=True)
    time.sleep(_SAMPLE_SECONDS)
    after = psutil.cpu_times(percpu=True)
    idle = {core: after[core].idle - before[core].idle if core < len(after) else 0.0 for core in allowed}
    return _spread_over_physical(sorted(allowed, key=lambda core: -idle[core]), count)


def _spread_over_physical(cores: Sequence[int], count: int) -> tuple[int, ...]:
    """The first ``count`` of the cores, those that share a physical core with an earlier one put last."""
    seen, first, second = set[str](), list[int](), list[int]()
    for core in cores:
        siblings = _TOPOLOGY / f"cpu{core}/topology/thread_siblings_list"
        physical = siblings.read_text().strip() if siblings.exists() else str(core)
        (second if physical in seen else first).append(core)
        seen.add(physical)
    return tuple([*first, *second][:count])


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Keep the calling thread on the first of these cores for the duration; without cores, anywhere.

    ONNX Runtime computes in the calling thread and in threads of its own, which a session is opened with.
    """
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores[:1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
