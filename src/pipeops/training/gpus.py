"""GPUs shared by the training jobs of one machine: each job holds a slot of one GPU while it runs.

A slot is a lock file that the system frees when the process ends, however it ends.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import IO

from pipeops.errors import PipeOpsError
from pipeops.locks import locked
from pipeops.settings import Device

VISIBLE = "CUDA_VISIBLE_DEVICES"
_SECONDS_BETWEEN_TRIES = 0.5


@contextmanager
def leased(device: Device, *, slots: int, gpus: int = 1) -> Iterator[None]:
    """While open, this process sees one GPU, or several, of which it holds a slot; it waits for free ones.

    Where ``CUDA_VISIBLE_DEVICES`` is set already (by Slurm, say), it is respected and nothing is leased. To
    be called before CUDA is initialised.

    Args:
        device: ``cpu`` hides all GPUs, ``gpu`` requires one, ``auto`` takes one where there is one.
        slots: how many jobs share a GPU.
        gpus: how many this job takes.

    Raises:
        PipeOpsError: GPUs are asked for where there are none, or fewer.
    """
    if device == "cpu":
        os.environ[VISIBLE] = ""
    given = os.environ.get(VISIBLE)
    found = [given] if given else [] if given is not None else installed()
    if device == "gpu" and not found:
        hidden = " (CUDA_VISIBLE_DEVICES is empty)" if given is not None else ""
        raise PipeOpsError(
            f"training.device: a GPU is asked for and there is none{hidden}; set it to auto or cpu"
        )
    if given and len(given.split(",")) < gpus:
        raise PipeOpsError(
            f"training.gpus_per_training: {gpus}, but CUDA_VISIBLE_DEVICES is {given}; give each training as "
            "many (on Slurm: gpus_per_training in the profile), or lower it"
        )
    if given is None and 0 < len(found) < gpus:
        raise PipeOpsError(f"training.gpus_per_training: {gpus}, but this machine has {len(found)}; lower it")
    with ExitStack() as held:
        if given is None and found:
            locks = _first_free(found, slots, gpus)
            for lock in locks.values():
                held.enter_context(lock)
            os.environ[VISIBLE] = ",".join(locks)
            held.callback(os.environ.pop, VISIBLE, None)
        yield


def installed() -> list[str]:
    """UUIDs of the machine's NVIDIA GPUs."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=uuid", "--format=csv,noheader"]
    run = subprocess.run(query, capture_output=True, text=True, check=False)
    return run.stdout.split() if run.returncode == 0 else []


def _first_free(gpus: Sequence[str], slots: int, wanted: int) -> dict[str, IO[str]]:
    """Lock a slot on each of ``gpus`` GPUs, those with the fewest slots taken first: all of them, or none."""
    folder = Path(tempfile.gettempdir()) / f"pipeops-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        held: dict[str, IO[str]] = {}
        for slot, gpu in product(range(slots), gpus):
            if gpu not in held and (lock := locked(folder / f"{gpu}.{slot}")):
                held[gpu] = lock
            if len(held) == wanted:
                return held
        for lock in held.values():
            lock.close()
        time.sleep(_SECONDS_BETWEEN_TRIES)
