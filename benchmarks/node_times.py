"""Where the time of an exported graph goes, by ONNX Runtime's own profile.

python benchmarks/node_times.py results/onnx/sst2/O/seed1/model-int8.onnx --lengths 32 128 512

Every operator's time in a run is the sum of its nodes' medians. An If is left out: its branches' nodes count.
"""

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
from common import introduce, positive
from rich.console import Console

from pipeops.errors import PipeOpsError, errors_in_one_line
from pipeops.models.shape import ModelShape
from pipeops.onnx.runtime import NEVER
from pipeops.reading import reading
from pipeops.text import markdown_table

WARM_UP = 16
"""Runs that are not counted."""
NAMED = 0.01
"""Operators with a smaller part of the time at every length are one row."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graph", type=Path, help="model[-int8].onnx, which runs to its last exit")
    parser.add_argument("--lengths", type=positive, nargs="+", default=[32, 128, 512], help="in tokens")
    parser.add_argument("--runs", type=positive, default=50)
    parser.add_argument("--threads", type=positive, default=2)
    args = parser.parse_args()
    introduce(Console(), threads=args.threads)
    found = {n: operator_times(args.graph, n, runs=args.runs, threads=args.threads) for n in args.lengths}
    print(table(found))


def table(found: dict[int, Counter[str]]) -> str:
    """Milliseconds and part of the whole, a row per operator, a column per length."""
    totals = {length: sum(times.values()) for length, times in found.items()}
    every = sorted({op for times in found.values() for op in times}, key=lambda op: -found[max(found)][op])
    small = [op for op in every if all(found[n][op] < NAMED * totals[n] for n in found)]
    rows = [[op, *(_cell(found[n][op], totals[n]) for n in found)] for op in every if op not in small]
    rest = {n: sum(times[op] for op in small) for n, times in found.items()}
    rows.append([f"{len(small)} others", *(_cell(rest[n], totals[n]) for n in found)])
    rows.append(["all, ms", *(f"{totals[n]:.2f}" for n in found)])
    return markdown_table(["operator", *(f"{n} tokens" for n in found)], rows)


def _cell(milliseconds: float, total: float) -> str:
    return f"{milliseconds:.2f} ({milliseconds / total:.0%})"


def operator_times(graph: Path, length: int, *, runs: int, threads: int) -> Counter[str]:
    """Milliseconds of each operator in one run, random tokens without padding."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.add_session_config_entry("session.x64quantprecision", "1")  # as PipeOps runs it
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        with reading(graph, absent="export the model first", again="export it again"):
            graph.open("rb").close()
            session = onnxruntime.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["SkipLayerNormFusion"],  # likewise
            )
            shape = ModelShape.from_config(
                json.loads(session.get_modelmeta().custom_metadata_map["pipeops.shape"])
            )
        if length > shape.max_length:
            raise PipeOpsError(f"--lengths: {length} tokens, the model takes at most {shape.max_length}")
        ids = np.random.default_rng(0).integers(0, shape.vocab_size, (1, length))
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for given in session.get_inputs():
            if given.name == "thresholds":
                inputs["thresholds"] = np.full(given.shape, NEVER, np.float32)
        for _ in range(WARM_UP + runs):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"])
    times: Counter[str] = Counter()
    for (op, _), microseconds in nodes.items():
        if op != "If":
            times[op] += float(np.median(microseconds[WARM_UP:])) / 1e3
    if not times:
        raise PipeOpsError(
            f"{graph}: ONNX Runtime's profile names no operator; this version may lay it out anew"
        )
    return times


if __name__ == "__main__":
    with errors_in_one_line():
        main()
