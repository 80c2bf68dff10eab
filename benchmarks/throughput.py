"""Texts a second: many texts at once, PipeOps beside other engines that run the same trained model.

python benchmarks/throughput.py results/sst2-minilm --output engines --engines PipeOps OpenVINO
python benchmarks/throughput.py results/sst2-minilm --output engines --pairs data/mrpc/validation.parquet

Every engine gets the same batches: of like length, up to so many tokens with padding. 0: one text at a time.
Files are those of engines.py, engines are open as there, and take turns.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import introduce, positive, turns
from engine_kinds import ENGINES, Opened
from engines import BASE, Findings, chosen, console, make_all, sources_of, working
from numpy.typing import NDArray
from workers import SPINNING, Worker

from pipeops.data.tokenised import load_tokenised
from pipeops.errors import errors_in_one_line
from pipeops.files import replaced
from pipeops.onnx.classify import batches, stacked
from pipeops.text import markdown_table

WARM_UP = 1
"""Rounds that are run first and not counted: every shape is then known."""


def main() -> None:
    args = arguments()
    os.environ |= SPINNING | {"OMP_NUM_THREADS": str(args.threads)}
    introduce(console, threads=args.threads)
    sources, findings = sources_of(args), Findings(args.output, threads=args.threads)
    texts = {
        what: texts_of(path, args.texts)
        for what, path in (("sentences", sources.validation), ("pairs", args.pairs))
        if path
    }
    folders = make_all(chosen(args.engines), sources, findings)
    page = []
    with working(folders, sources, findings) as workers:
        for what, inputs in texts.items():
            page.append(measured(what, inputs, workers, args.batch_tokens, args.rounds))
            console.print(page[-1])
    with replaced(args.output / "throughput.md") as path:
        path.write_text("\n\n".join(page) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="of a study with O and E")
    parser.add_argument("--dataset", default="sst2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pairs", type=Path, help="tokenised rows of another dataset, for times alone")
    parser.add_argument("--output", type=Path, required=True, help="folder for files and findings")
    parser.add_argument("--engines", nargs="+", default=[], help="how names begin; default: all")
    parser.add_argument("--batch-tokens", type=int, nargs="+", default=[0, 512, 1024, 2048])
    parser.add_argument("--texts", type=positive, default=256, help="of each kind, drawn at random")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--within", type=float, default=1.0, help="points of accuracy that the policy costs")
    return parser.parse_args()


def texts_of(path: Path, count: int) -> list[NDArray[np.int64]]:
    """Token ids of some rows."""
    found = load_tokenised(path).input_ids
    return [found[index] for index in np.random.default_rng(0).permutation(len(found))[:count]]


def measured(
    what: str,
    texts: Sequence[NDArray[np.int64]],
    workers: dict[str, Worker],
    budgets: Sequence[int],
    rounds: int,
) -> str:
    """Let engines run all texts in turns, with each number of tokens; a table of medians."""
    runs = [(name, tokens) for tokens in budgets for name in workers if not tokens or ENGINES[name].batches]
    seconds: dict[tuple[str, int], list[float]] = {run: [] for run in runs}
    for numbers in turns(list(map(str, range(len(runs)))), WARM_UP + rounds):
        for run in (runs[int(number)] for number in numbers):
            seconds[run].append(workers[run[0]].do(seconds_of_all, texts, run[1]))
    rows, base = [], np.array(seconds[BASE, budgets[0]][WARM_UP:])
    for name in workers:
        cells = []
        for tokens in budgets:
            taken = np.array(seconds.get((name, tokens), [])[WARM_UP:])
            cells.append(
                f"{np.median(len(texts) / taken):.0f} ({np.median(base / taken):.2f})" if len(taken) else "-"
            )
        rows.append([name, *cells])
    header = ["engine", *(f"{tokens:,} tokens" if tokens else "one at a time" for tokens in budgets)]
    lengths = np.array([len(ids) for ids in texts])
    return (
        f"Texts a second: {len(texts)} {what} of {lengths.mean():.1f} tokens; in brackets over those of "
        f"{BASE}, one at a time; medians of {rounds} rounds\n\n{markdown_table(header, rows)}"
    )


def seconds_of_all(opened: Opened, texts: Sequence[NDArray[np.int64]], tokens: int) -> float:
    """How long all texts take; putting them together counts."""
    start = time.perf_counter()
    for batch in batches([len(ids) for ids in texts], tokens):
        opened.ask(*stacked([texts[i] for i in batch], [np.ones_like(texts[i]) for i in batch]))
    return time.perf_counter() - start


if __name__ == "__main__":
    with errors_in_one_line():
        main()
