"""The times of Table 2 of Xin et al. 2022, on real lengths: RoBERTa-base, its D, P and DP, random weights.

What is not meant: accuracies, as the weights are random, and exact lengths, as any tokenizer may be given
(Xin et al. 2022 use RoBERTa's). Times are measured as the workflow does it.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import roberta
from rich.console import Console
from rich.table import Table

from pipeops.analysis.cumulativeness import combined_saving
from pipeops.analysis.paper import paper_table2, title
from pipeops.data.tasks import TASKS, split_batches
from pipeops.data.tokenised import TokenisedSplit, load_tokenised, tokenise
from pipeops.measuring.price import measure_prices
from pipeops.measuring.price_list import mean_over_lengths
from pipeops.models.shape import ModelShape
from pipeops.pipeline import INFERENCE
from pipeops.settings import PricesSection

MAX_LENGTH = 512
ROUNDS = 10
DATASETS = ("mrpc", "sst2")
# As in Xin et al. 2022: half the layers, 8 of 12 heads, 1536 of 3072 neurons.
PIPELINES = {
    "O": roberta(12, 768, 50265),
    "D": roberta(6, 768, 50265),
    "P": roberta(12, 768, 50265, heads=8, ffn=1536),
    "DP": roberta(6, 768, 50265, heads=8, ffn=1536),
}


def print_table2(console: Console, glue: Path, tokenizer: Path, *, threads: int) -> None:
    """Print the times of every pipeline, padded to 512, with Q, L and both, beside Xin et al. 2022."""
    savings = [f"{letters} saves" for letters in ("Q", "L", "LQ")]
    table = Table("dataset", "pipeline", "time, ms", *savings, "LQ est.", "paper: time, Q, L, LQ")
    paper = paper_table2().set_index(["dataset", "pipeline"])
    shapes = {name: replace(shape, exit_layers=(shape.num_layers,)) for name, shape in PIPELINES.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dataset in DATASETS:
            split = lengths_of(dataset, glue, tokenizer, folder)
            for pipeline in PIPELINES:
                original_ms, time = times(shapes[pipeline], shapes["O"], split, threads=threads)
                saving = {inference: 1 - time[inference] / time[""] for inference in INFERENCE}
                estimated = combined_saving(saving["L"], saving["Q"])
                measured = [f"{100 * saving[i]:.0f}%" for i in ("Q", "L", "LQ")]
                theirs = paper.loc[dataset, pipeline]
                table.add_row(
                    title(dataset),
                    pipeline,
                    f"{time[''] * original_ms:.1f}",
                    *measured,
                    f"{100 * estimated:.0f}%",
                    "{time_raw_ms} ms {saving_q:.0f}% {saving_l:.0f}% {saving_lq:.0f}%".format(**theirs),
                )
            table.add_section()
    console.print(table)


def lengths_of(dataset: str, glue: Path, tokenizer: Path, folder: Path) -> TokenisedSplit:
    from pipeops.models.backbones import (
        load_tokenizer,  # transformers: only where there is something to tokenise
    )

    path = folder / f"{dataset}.parquet"
    loaded = load_tokenizer(tokenizer)
    task = TASKS[dataset]
    rows = split_batches(task, "validation", glue=str(glue), examples=None)
    tokenise(task, rows, loaded, path, max_length=MAX_LENGTH)
    return load_tokenised(path)


def times(
    shape: ModelShape, original: ModelShape, split: TokenisedSplit, *, threads: int
) -> tuple[float, dict[str, float]]:
    """O's time in ms, and the pipeline's mean time over O's by inference letters."""
    lengths = np.array([len(ids) for ids in split.input_ids])
    settings = PricesSection(threads=threads, rounds=ROUNDS, most_rounds=ROUNDS, precision=0.9)
    table, record = measure_prices(
        shape, original, lengths=lengths, max_length=split.max_length, settings=settings
    )
    means = mean_over_lengths(table, lengths, split.max_length).set_index("inference")["time_relative"]
    return record["original_ms"]["median"], {inference: float(means[inference]) for inference in INFERENCE}
