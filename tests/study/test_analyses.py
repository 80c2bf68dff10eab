"""The table of analyses, against what it names."""

import re
from importlib import import_module

import pytest
from helpers import ROOT

from pipeops.study.analyses import ANALYSES

RULE = (ROOT / "workflow/rules/analyse.smk").read_text()


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda analysis: analysis.name)
def test_an_analysis_has_its_function_and_its_caption(analysis):
    module, _, function = analysis.target.partition(":")
    assert callable(getattr(import_module(module), function))
    caption = (ROOT / f"workflow/report/{analysis.name}.rst").read_text()
    for parameter in re.findall(r"snakemake\.params\.(\w+)", caption):
        assert re.search(rf"^ +{parameter}=analysis|^ +{parameter}=study", RULE, flags=re.MULTILINE), (
            parameter
        )
