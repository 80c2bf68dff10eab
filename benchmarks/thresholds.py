"""One threshold for all exits, or one per exit: chosen on some sentences, judged on others.

    python benchmarks/thresholds.py docs/results/data/sst2-minilm --dataset sst2

For every int8 model with exits of a study's published answers: thresholds are chosen on 600 random examples,
so that leaving early costs at most so many points there, and applied to the others. Those per exit start from
the common one, and change one by one as long as that asks fewer exits.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.measuring.answers import read_answers
from pipeops.measuring.policies import scores
from pipeops.onnx.runtime import chosen_exits
from pipeops.settings import MeasuringSection
from pipeops.text import markdown_table

ALLOWED = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Points that leaving early may cost where thresholds are chosen."""
CANDIDATES = np.array(MeasuringSection().thresholds, dtype=np.float32)


class Exits:
    """How sure each exit is of each example, and whether it is right."""

    def __init__(self, confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        self.confidence, self.right = confidence, right

    def of(self, examples: NDArray[np.int64]) -> "Exits":
        return Exits(self.confidence[examples], self.right[examples])

    def cost(self, thresholds: NDArray[np.float32]) -> tuple[float, float]:
        """Points below the last exit, and the mean number of exits asked."""
        taken = chosen_exits(self.confidence, thresholds)
        accuracy = self.right[np.arange(len(taken)), taken].mean()
        return float(100 * (self.right[:, -1].mean() - accuracy)), float(taken.mean() + 1)


def common(exits: Exits, allowed: float) -> NDArray[np.float32]:
    """The lowest candidate for all exits that costs no more, as `pipeops deploy` takes it."""
    inner = exits.right.shape[1] - 1
    for threshold in CANDIDATES:
        if exits.cost(np.full(inner, threshold))[0] <= allowed + 1e-9:
            break
    return np.full(inner, threshold, dtype=np.float32)


def per_exit(exits: Exits, allowed: float) -> NDArray[np.float32]:
    """From the common one: the change of one exit that saves most, as long as one saves any."""
    best = common(exits, allowed)
    least = exits.cost(best)[1]
    while True:
        changed = []
        for place in range(len(best)):
            for threshold in CANDIDATES:
                tried = best.copy()
                tried[place] = threshold
                lost, asked = exits.cost(tried)
                if lost <= allowed + 1e-9 and asked < least - 1e-9:
                    changed.append((asked, tuple(tried)))
        if not changed:
            return best
        least, found = min(changed)
        best = np.array(found, dtype=np.float32)


def main() -> None:
    """Print a row per number of points allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("published", type=Path, help="folder of a study's published answers")
    parser.add_argument("--dataset", default="sst2")
    parser.add_argument("--examples", type=int, default=600, help="that thresholds are chosen on")
    parser.add_argument("--splits", type=int, default=4, help="of each model's examples")
    arguments = parser.parse_args()
    random, found = np.random.default_rng(0), []
    for path in sorted(arguments.published.glob(f"answers/{arguments.dataset}/*/*.parquet")):
        answers = read_answers(path, dataset=arguments.dataset, pipeline=path.parent.name)
        logits = answers.of("Q")
        if logits.shape[1] == 1:
            continue
        right = logits.argmax(axis=-1) == answers.label_ids[:, None]
        model = Exits(scores(logits, "max_probability"), right)
        for _ in range(arguments.splits):
            shuffled = random.permutation(len(right))
            seen, unseen = np.split(shuffled, [arguments.examples])
            found += [
                [allowed, choose.__name__, *model.of(unseen).cost(choose(model.of(seen), allowed))]
                for allowed in ALLOWED
                for choose in (common, per_exit)
            ]
    means = pd.DataFrame(found, columns=["allowed", "choice", "lost", "exits"])
    means = means.pivot_table(index="allowed", columns="choice", values=["lost", "exits"])[["lost", "exits"]]
    rows = [[f"{value:.2f}" for value in (allowed, *row)] for allowed, *row in means.itertuples()]
    header = ["allowed", "lost, common", "lost, per exit", "exits asked, common", "exits asked, per exit"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
