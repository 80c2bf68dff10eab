"""The paper's own figures, and its names of datasets."""

from importlib.resources import files

import pandas as pd

_TITLES = {"mrpc": "MRPC", "sst2": "SST-2", "qnli": "QNLI", "qqp": "QQP"}


def title(dataset: str) -> str:
    """Return the dataset's name as the paper writes it, or as it is."""
    return _TITLES.get(dataset, dataset)


def paper_table1() -> pd.DataFrame:
    """Return the figures of the paper's Table 1, as ``commutativity.table1`` does but for those it lacks."""
    wide = _read("paper_table1.csv")
    rows = [
        (row["dataset"], operators, row["pairs"], row[f"{operators}_mean"], row[f"{operators}_sd"])
        for row in wide.to_dict("records")
        for operators in ("DE", "PE", "DPE")
    ]
    return pd.DataFrame(rows, columns=["dataset", "operators", "pairs", "mean", "sd"])


def paper_table2() -> pd.DataFrame:
    """Return the paper's Table 2: a row per (dataset, pipeline), accuracies and savings in percent."""
    return _read("paper_table2.csv")


def _read(name: str) -> pd.DataFrame:
    with files("pipeops.analysis").joinpath(name).open() as file:
        return pd.read_csv(file)
