"""A real Slurm on this host for the time of a test: a controller, two nodes, no accounting. It takes root."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
NODES = ("n1", "n2")
CONFIGURATION = Path("/etc/slurm/slurm.conf")
"""Where Slurm's commands look: jobs do not inherit SLURM_CONF."""
_FIRST_PORT = 17001
_SECONDS = 60


def missing() -> str:
    """Why no Slurm can be started here; empty where it can."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed (Debian's slurm-wlm and munge)"
    if CONFIGURATION.exists():
        return f"{CONFIGURATION} is there: this host has a Slurm of its own"
    return "" if os.geteuid() == 0 else "starting Slurm takes root"


class Cluster:
    """A running Slurm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def start(self, name: str, *command: str) -> None:
        """Start a daemon that stays in the foreground of its own process group."""
        log = (self.folder / f"{name}.log").open("ab")
        self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill_node(self, name: str) -> None:
        """What a power cut does: the daemon and all that it started are gone at once."""
        daemon = self.daemons.pop(name)
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
        for job in _processes_on(name):
            job.kill()

    def stop(self) -> None:
        """End every daemon."""
        for daemon in self.daemons.values():
            with suppress(ProcessLookupError):  # ended by itself
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        for job in (job for node in NODES for job in _processes_on(node)):
            job.kill()


@contextmanager
def cluster(folder: Path, *, cores: int = 2) -> Iterator[Cluster]:
    """Start a Slurm of two nodes with so many cores each, and partitions ``cpu`` and ``gpu`` without GPUs."""
    slurm = Cluster(folder)
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().split(".")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    size = f"CPUs={cores} RealMemory={memory}"
    ports = f"{_FIRST_PORT}-{_FIRST_PORT + len(NODES) - 1}"
    CONFIGURATION.parent.mkdir(exist_ok=True)
    CONFIGURATION.write_text(
        f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={_FIRST_PORT - 1}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdTimeout=10
ReturnToService=2
MinJobAge=600
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n[1-{len(NODES)}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports}] {size}
PartitionName=cpu Nodes=ALL Default=YES State=UP
PartitionName=gpu Nodes=ALL State=UP
"""
    )
    try:
        _start_munge(slurm)
        slurm.start("slurmctld", "slurmctld", "-D", "-i")
        for node in NODES:
            slurm.start(node, "slurmd", "-D", "-N", node)
        _wait_for_nodes(slurm)
        yield slurm
    finally:
        slurm.stop()
        CONFIGURATION.unlink(missing_ok=True)


def _start_munge(slurm: Cluster) -> None:
    """Slurm's authentication; it wants a socket of its own user in /run."""
    if Path("/run/munge/munge.socket.2").is_socket():
        ping = subprocess.run("munge -n | unmunge", shell=True, capture_output=True, check=False)
        if ping.returncode == 0:
            return
    for folder in ("/run/munge", "/var/lib/munge", "/var/log/munge", "/etc/munge"):
        Path(folder).mkdir(exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    Path("/run/munge").chmod(0o755)
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        key.write_bytes(os.urandom(1024))
    shutil.chown(key, "munge", "munge")
    key.chmod(0o400)
    slurm.start("munged", "runuser", "-u", "munge", "--", "munged", "--foreground", "--force")
    _until(lambda: Path("/run/munge/munge.socket.2").is_socket(), "munged")


def _wait_for_nodes(slurm: Cluster) -> None:
    def idle() -> bool:
        try:
            return slurm.run("sinfo", "-h", "-N", "-p", "cpu", "-o", "%T").split() == ["idle"] * len(NODES)
        except subprocess.CalledProcessError:
            return False

    _until(idle, "Slurm's nodes")


def _until(condition, what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come up in {_SECONDS} s")
        time.sleep(0.2)


def _processes_on(node: str) -> list[psutil.Process]:
    """The processes of the jobs that run there: they carry the name of the node."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURMD_NODENAME") == node:
                found.append(process)
        except psutil.Error:  # ended meanwhile
            continue
    return found
