"""The figures of Xin et al. 2022, and their names of datasets."""

from importlib.resources import files

import pandas as pd

_TITLES = {"mrpc": "MRPC", "sst2": "SST-2", "qnli": "QNLI", "qqp": "QQP"}


def title(dataset: str) -> str:
    """Return the dataset's name as Xin et al. 2022 write it, or as it is."""
    return _TITLES.get(dataset, dataset)


def paper_table1() -> pd.DataFrame:
    """Return Table 1 of Xin et al. 2022 in the form of ``commutativity.table1``, without what it lacks."""
    wide = _read("paper_table1.csv")
    rows = [
        (row["dataset"], operators, row["pairs"], row[f"{operators}_mean"], row[f"{operators}_sd"])
        for row in wide.to_dict("records")
        for operators in ("DE", "PE", "DPE")
    ]
    return pd.DataFrame(rows, columns=["dataset", "operators", "pairs", "mean", "sd"])


def paper_table2() -> pd.DataFrame:
    """Return Table 2 of Xin et al. 2022: a row per (dataset, pipeline), accuracies and savings in percent."""
    return _read("paper_table2.csv")


def _read(name: str) -> pd.DataFrame:
    with files("pipeops.analysis").joinpath(name).open() as file:
        return pd.read_csv(file)
