"""V through the workflow: vocabulary, prices, trainings, tables, recommendation and the deployed folder."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from deployed import run_script
from helpers import STUDY, planned, snakemake, write_two_layer_backbone

from pipeops.data.tokenised import load_tokenised
from pipeops.measuring.answers import read_answers
from pipeops.models.shape import ModelShape
from pipeops.models.vocabulary import read_vocabulary
from pipeops.study.config import read_study
from pipeops.study.planning import plan

DATASET = "generated-sentiment"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which a small study with V was run."""
    folder = tmp_path_factory.mktemp("study")
    model = {"max_length": 40}
    for seed, name in enumerate(("backbone", "student")):
        write_two_layer_backbone(folder / name, seed=seed)
        model[name] = str(folder / name)
    study = STUDY | {
        "model": model,
        "seeds": [1, 2],
        "operator_sets": ["VDE"],
        "pipelines": ["O", "V", "VP"],
        "table2": ["O", "V", "VP"],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    expected = plan(read_study([folder / "study.yaml"])).jobs
    assert planned(snakemake(folder, "--dry-run", "all")) == {**expected, "all": 1}
    snakemake(folder, "--cores", "2", "all")
    return folder


def test_it(finished):
    results = finished / "results"
    print(*sorted(str(p.relative_to(results)) for p in results.rglob("*") if p.is_file()), sep="\n")
