"""What every exit answers on every validation example, as logits, so that any exit rule can be replayed.

Time plays no part, so it can run beside anything.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeops.data.tokenised import TokenisedSplit, load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.hardware import int8_kernels
from pipeops.integrity import sealed
from pipeops.measuring.answers import METADATA, PRECISIONS
from pipeops.onnx.graphs import refuse_other_model
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import Profiler
from pipeops.progress import tracked
from pipeops.provenance import provenance


def evaluate(
    model: Path, data: Path, output: Path, *, dataset: str, pipeline: str, seed: int, threads: int = 1
) -> None:
    """Ask every exit about every example, in fp32 and in int8, and write the answers as Parquet.

    Columns ``example`` (position in the split), ``length`` (tokens), ``label`` (class id), and ``fp32`` and
    ``int8``: fixed-size lists of the logits, exit after exit, in each the classes in order. Metadata: shape,
    class names, ``max_length``, where it comes from. Same graphs, data and machine: same bytes.

    Args:
        model: folder of the exported graphs.
        data: tokenised validation examples.
        output: the file to write.
        dataset: for the record, as the other two.
        pipeline: the trained one.
        seed: its seed.
        threads: CPU threads.

    Raises:
        PipeOpsError: a file cannot be read, or the graphs are not of one model, or not for this data.
    """
    split = load_tokenised(data)
    profilers = {
        precision: Profiler.load(graph_path(model, "profile", quantised=precision == "int8"), threads=threads)
        for precision in PRECISIONS
    }
    shape = profilers["fp32"].shape
    if shape != profilers["int8"].shape:
        raise PipeOpsError(f"{model}: profile.onnx and profile-int8.onnx have other shapes; export again")
    if shape.num_labels != len(split.labels):
        raise PipeOpsError(
            f"{model}: answers {shape.num_labels} classes, {data} has {len(split.labels)}; train on this data"
        )
    for profiler in profilers.values():
        refuse_other_model(model, profiler.metadata, pipeline=pipeline, seed=seed, labels=list(split.labels))
    split.refuse_other_vocabulary(data, vocabulary=shape.vocab_size, longest=shape.max_length, model=model)
    columns: dict[str, pa.Array] = {
        "example": pa.array(np.arange(len(split)), pa.int32()),
        "length": pa.array([len(ids) for ids in split.input_ids], pa.int32()),
        "label": pa.array(split.label_ids, pa.int32()),
    }
    for precision, profiler in profilers.items():
        flat = pa.array(answers(profiler, split, what=f"evaluate, {precision}").ravel())
        columns[precision] = pa.FixedSizeListArray.from_arrays(
            flat, len(shape.exit_layers) * shape.num_labels
        )
    about = {
        "dataset": dataset,
        "pipeline": pipeline,
        "seed": seed,
        "labels": split.labels,
        "max_length": split.max_length,
        "shape": shape.to_config(),
        "int8_kernels": int8_kernels(),
        # Not when: the same answers are the same bytes.
        "provenance": {key: value for key, value in provenance().items() if key != "finished"},
    }
    table = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(about)})
    with sealed(output) as (path,):
        pq.write_table(
            table,
            path,
            compression="zstd",
            compression_level=9,
            use_dictionary=["length", "label"],
            # Bytes of like significance together: signs and exponents compress.
            use_byte_stream_split=[f"{precision}.list.element" for precision in PRECISIONS],
        )


def answers(profiler: Profiler, split: TokenisedSplit, *, what: str = "evaluate") -> NDArray[np.float32]:
    """Logits of every exit for every example, shape (examples, exits, labels).

    Each example is run by itself and unpadded, as a deployed model runs it: in int8 all activations of a
    batch share one scale, so an answer would depend on its neighbours. Equal inputs are run once.
    """
    known: dict[bytes, NDArray[np.float32]] = {}
    rows = []
    for ids in tracked(split.input_ids, what, total=len(split)):
        key = ids.tobytes()
        if key not in known:
            known[key] = profiler.run(ids[None], np.ones_like(ids)[None]).logits[0]
        rows.append(known[key])
    return np.stack(rows)
