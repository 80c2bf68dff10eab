"""Engines in processes of their own, asked one at a time."""

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
from engine_kinds import ENGINES, Ask, Opened, Sources
from numpy.typing import NDArray

from pipeops.errors import PipeOpsError
from pipeops.files import temporary_folder
from pipeops.measuring.rounds import warm_milliseconds
from pipeops.text import shortened

PAUSE = 0.05
"""Seconds after an engine's turn, in which its threads stop spinning."""
SPINNING = {"KMP_BLOCKTIME": "1", "GOMP_SPINCOUNT": "20000"}
"""Environment of the engines: OpenMP's threads spin for about a millisecond, so within a run only."""
FIRST_LENGTH = 128
"""Tokens of the first answer, which loading ends with."""


class Worker:
    """An engine that is open in a process of its own. Closing it ends the process."""

    def __init__(self, name: str, sources: Sources, folder: Path, threads: int) -> None:
        """Open the engine ``name`` of the files in ``folder``.

        Raises:
            PipeOpsError: it cannot be opened.
        """
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, sources, folder, threads))
        self._process.start()
        theirs.close()
        try:
            self.costs: dict[str, float] = self._received()
        except PipeOpsError:
            self.close()
            raise

    def do(self, task: Callable[..., Any], *arguments: Any) -> Any:
        """Let it run ``task(opened, *arguments)``, a function of a module, and wait for what it returns.

        Raises:
            PipeOpsError: the task failed.
        """
        self._connection.send((task, arguments))
        answer = self._received()
        time.sleep(PAUSE)
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _received(self) -> Any:
        try:
            succeeded, answer = self._connection.recv()
        except EOFError:
            raise PipeOpsError(f"{self.name}: its process ended") from None
        if not succeeded:
            raise PipeOpsError(f"{self.name}: {answer}")
        return answer


def milliseconds(opened: Opened, ids: NDArray[np.int64]) -> float:
    """How long a run of warm caches takes, on random tokens without padding."""
    ask = opened.ask_random or opened.ask
    return warm_milliseconds(partial(ask, ids, np.ones_like(ids)))


def milliseconds_each(opened: Opened, examples: Sequence[NDArray[np.int64]]) -> float:
    """How long one of these inputs takes on average, one at a time, after all were run once."""
    return _milliseconds_each(opened.ask, examples)


def milliseconds_each_random(opened: Opened, examples: Sequence[NDArray[np.int64]]) -> float:
    """The same for random tokens."""
    return _milliseconds_each(opened.ask_random or opened.ask, examples)


def _milliseconds_each(ask: Ask, examples: Sequence[NDArray[np.int64]]) -> float:
    for ids in examples:
        ask(ids[None], np.ones_like(ids[None]))
    start = time.perf_counter()
    for ids in examples:
        ask(ids[None], np.ones_like(ids[None]))
    return (time.perf_counter() - start) * 1e3 / len(examples)


def classes(opened: Opened, examples: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """What it answers, one input at a time and without padding."""
    return np.array([opened.ask(ids[None], np.ones_like(ids[None]))[0].argmax() for ids in examples])


def made(name: str, sources: Sources, folder: Path) -> str:
    """Make an engine's files in a process of its own, unless they are there; what went wrong, or nothing."""
    if folder.exists():
        return ""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_make, name, sources, folder).result()


def _make(name: str, sources: Sources, folder: Path) -> str:
    warnings.simplefilter("ignore")  # what converters say of each other
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    try:
        with temporary_folder(folder.parent) as temporary:
            ENGINES[name].make(sources, temporary)
            temporary.rename(folder)
    except Exception as error:
        return _said(error)
    return ""


def _serve(connection: Connection, name: str, sources: Sources, folder: Path, threads: int) -> None:
    try:
        opened, costs = _open(name, sources, folder, threads)
    except Exception as error:  # whatever an engine raises is its answer
        connection.send((False, _said(error)))
        return
    connection.send((True, costs))
    while True:
        try:
            task, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, task(opened, *arguments)))
        except Exception as error:
            connection.send((False, _said(error)))


def _open(name: str, sources: Sources, folder: Path, threads: int) -> tuple[Opened, dict[str, float]]:
    """Open an engine and let it answer once; seconds that took, and MiB that the process grew by."""
    engine, process = ENGINES[name], psutil.Process()
    if engine.library:
        import_module(engine.library)
    before, start = process.memory_info().rss, time.perf_counter()
    opened = engine.open(sources, folder, threads)
    ids = np.full((1, min(FIRST_LENGTH, sources.shape.max_length)), 5)
    opened.ask(ids, np.ones_like(ids))
    seconds, after = time.perf_counter() - start, process.memory_info().rss
    return opened, {"load_s": seconds, "memory_mib": (after - before) / 2**20}


def _said(error: Exception) -> str:
    """An error in a line, its type where the message says little."""
    return shortened(f"{type(error).__name__}: {error}", 300)
