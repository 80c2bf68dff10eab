"""How tables and figures name what datasets are measured in."""

import pandas as pd

from pipeops.analysis.metrics import capitalised, heading, metrics_of, quality


def test_a_metric_is_named_where_it_is_not_accuracy():
    assert heading("sst2", "accuracy") == "SST-2"
    assert heading("reviews", "macro_f1") == "reviews (macro-F1)"


def test_several_metrics_have_one_word():
    assert quality(["mcc", "mcc"]) == "MCC"
    assert quality(["mcc", "accuracy"]) == "metric"
    assert quality(["mcc", "accuracy"], several="the metric") == "the metric"
    assert quality([]) == "accuracy"
    assert [capitalised(word) for word in ("accuracy", "macro-F1", "MCC")] == ["Accuracy", "Macro-F1", "MCC"]


def test_every_dataset_of_a_table_has_one_metric():
    rows = [("sst2", "accuracy", 1), ("reviews", "mcc", 2), ("reviews", "mcc", 3)]
    table = pd.DataFrame(rows, columns=["dataset", "metric", "seed"])
    assert metrics_of(table) == {"sst2": "accuracy", "reviews": "mcc"}
    assert metrics_of(table[:0]) == {}
