"""The claim about BERT-base, as its benchmark prints it."""

import re
import subprocess
import sys

from helpers import ROOT


def test_the_sources_width_is_an_eighth_of_bert_and_a_nineteenth_of_its_flops_half_way():
    command = [sys.executable, ROOT / "benchmarks/sizes.py"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    original, slender = (
        int(number.replace(",", ""))
        for number in re.search(r"no classifiers \| ([\d,]+) +\| ([\d,]+)", out).groups()
    )
    assert abs(slender / 13.9e6 - 1) < 0.02
    assert 7.8 < original / slender < 8
    assert 5 < float(re.search(r"after layer ([\d.]+) on average", out).group(1)) < 6
