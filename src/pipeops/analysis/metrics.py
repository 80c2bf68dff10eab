"""What the quality of each dataset's answers is measured in, and how tables and figures say so.

The columns, attributes and options named accuracy hold a value of the dataset's metric.
"""

from collections.abc import Iterable, Mapping

import pandas as pd

from pipeops.analysis.paper import title
from pipeops.measuring.classes import ACCURACY, METRICS

Metrics = Mapping[str, str]
"""By dataset: the name of its metric, one of ``classes.METRICS``."""


def metrics_of(table: pd.DataFrame) -> dict[str, str]:
    """The metric of every dataset of a table with these two columns."""
    return dict(table[["dataset", "metric"]].drop_duplicates().itertuples(index=False, name=None))


def heading(dataset: str, metric: str) -> str:
    """A dataset's title; with its metric, where that is not accuracy."""
    return title(dataset) if metric == ACCURACY.name else f"{title(dataset)} ({METRICS[metric].title})"


def quality(metrics: Iterable[str], *, several: str = "metric") -> str:
    """The title of a metric, where all datasets have the same; else ``several``."""
    titles = {METRICS[metric].title for metric in metrics} or {ACCURACY.title}
    return titles.pop() if len(titles) == 1 else several


def capitalised(text: str) -> str:
    """With a capital letter first, and the others as they are."""
    return text[:1].upper() + text[1:]
