"""One threshold for all exits, or one per exit: chosen on some sentences, judged on others.

    python benchmarks/thresholds.py docs/results/data/sst2-minilm --dataset sst2

For every int8 model with exits of a study's published answers: thresholds are chosen on 600 random examples,
so that leaving early costs at most so many points there, and applied to the others. The common one is what
`pipeops deploy` takes. Those per exit start from it, and change one by one as long as that asks fewer exits.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.measuring.answers import Answers, read_answers
from pipeops.measuring.policies import scores
from pipeops.onnx.runtime import chosen_exits
from pipeops.settings import MeasuringSection
from pipeops.study.deploying import fastest
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


def per_exit(exits: Exits, best: NDArray[np.float32], allowed: float) -> NDArray[np.float32]:
    """From these thresholds on: the change of one that saves most, as long as one saves any."""
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


def part(answers: Answers, examples: NDArray[np.int64]) -> Answers:
    """The int8 answers to these examples."""
    return replace(
        answers,
        lengths=answers.lengths[examples],
        label_ids=answers.label_ids[examples],
        logits={"int8": answers.of("Q")[examples]},
    )


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
            seen, unseen = np.split(random.permutation(len(right)), [arguments.examples])
            for allowed in ALLOWED:
                one = fastest(part(answers, seen), "Q", "max_probability", within=allowed)
                common = np.full(right.shape[1] - 1, one, dtype=np.float32)
                several = per_exit(model.of(seen), common, allowed)
                found.append([allowed, *model.of(unseen).cost(common), *model.of(unseen).cost(several)])
    columns = ["lost, common", "exits asked, common", "lost, per exit", "exits asked, per exit"]
    means = pd.DataFrame(found, columns=["allowed", *columns]).groupby("allowed").mean()
    rows = [[f"{value:.2f}" for value in row] for row in means.itertuples()]
    print(markdown_table(["allowed", *columns], rows))


if __name__ == "__main__":
    main()
