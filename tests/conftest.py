"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest
from helpers import folder_from

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on a network
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models; tests run side by side


@pytest.fixture
def glue() -> Path:
    """Real GLUE."""
    return folder_from("PIPEOPS_GLUE")


@pytest.fixture
def minilm() -> Path:
    """A real pretrained BERT-style encoder."""
    return folder_from("PIPEOPS_MINILM")
