"""The example package: an operator from outside, installed as users do and taken through the workflow."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from helpers import (
    DISTINCT,
    ROOT,
    STUDY,
    planned,
    snakemake,
    tiny_batch,
    tiny_model,
    write_two_layer_backbone,
)

from pipeops.models.shape import ModelShape
from pipeops.settings import ExitTraining

PACKAGE = ROOT / "examples/low_rank"
FEW = {"operator_sets": ["EF"], "pipelines": ["O", "E", "F"], "table2": ["O", "F"], "seeds": [1, 2, 3]}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the package is installed, from a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, folder / "source")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", folder / "site"]
    subprocess.run([*command, folder / "source"], check=True)
    return folder / "site"


@pytest.fixture
def installed(site, monkeypatch):
    """Jobs find the package."""
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)


@pytest.fixture(scope="module")
def training():
    """The heavy module, in this process; the registry here does not know F."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGE / "src")
        yield importlib.import_module("pipeops_low_rank.factorising")


def pipeops(*arguments):
    command = [sys.executable, "-m", "pipeops", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def planned_jobs(path):
    """Number of jobs per rule by ``pipeops plan``."""
    run = pipeops("plan", "--configfile", path, "--examples-per-second", 100)
    assert run.returncode == 0, run.stderr
    table = run.stdout.partition("trainings")[0]
    return {
        rule: int(count) for rule, count in re.findall(r"^\| *(\w+) *\| *(\d+) *\|$", table, re.MULTILINE)
    }


def test_the_recipes_excerpts_are_the_packages_code():
    recipe = (ROOT / "docs/new-operator.md").read_text()
    code = "".join(path.read_text() for path in sorted(PACKAGE.rglob("*")) if path.suffix in (".py", ".toml"))
    excerpts = re.findall(r"```(?:python|toml)\n(.*?)```", recipe, flags=re.DOTALL)
    assert len(excerpts) == 4
    for excerpt in excerpts:
        assert excerpt in code


@pytest.mark.parametrize("family", DISTINCT)
@pytest.mark.parametrize("changes", [{}, {"ffn_per_layer": [24, 7, 16, 40]}])
def test_full_rank_changes_nothing(training, family, changes):
    plain = tiny_model(family, exits=True)
    model = type(plain)(plain.config.with_shape(**changes)).eval()
    full_rank = min(16, *model.config.ffn_per_layer)
    factorised = training.with_ffn_rank(model, full_rank).eval()
    assert factorised.config.ffn_rank == full_rank
    if full_rank == 16:  # where a layer is narrower, the others lose some of their rank
        batch = tiny_batch(pad_token_id=model.config.pad_token_id)
        for one, other in zip(factorised(**batch).exit_logits, model(**batch).exit_logits, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
@pytest.mark.parametrize("rank", [1, 5, 16])
def test_what_is_lost_is_the_discarded_singular_values(training, shape, rank):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    first, second = training.factors(weight, rank)
    assert (first.shape, second.shape) == ((rank, shape[1]), (shape[0], rank))
    lost = (weight - second @ first).pow(2).sum()
    torch.testing.assert_close(lost, torch.linalg.svdvals(weight)[rank:].pow(2).sum())


def test_the_teacher_is_the_parent_and_the_shape_is_the_declared_one(training):
    declaration = importlib.import_module("pipeops_low_rank")
    settings = declaration.LowRankSection(keep_rank=0.25)
    parent = tiny_model(exits=True)
    before = {name: value.clone() for name, value in parent.state_dict().items()}
    (stage,) = training.factorise(SimpleNamespace(teacher=parent, settings=settings, exits=ExitTraining()))
    trainee = stage.prepare(lambda _: None)
    assert all(torch.equal(value, before[name]) for name, value in parent.state_dict().items())
    declared = declaration.LOW_RANK.shape(parent.config.shape, SimpleNamespace(settings=settings))
    assert trainee.model.config.shape == declared
    assert declared.ffn_rank == 4
    assert declared.parameters == sum(parameter.numel() for parameter in trainee.model.parameters())
    assert declared.parameters < parent.config.shape.parameters
    batch = tiny_batch()
    trainee.loss(trainee.model(**batch), batch, 0.0).backward()
    assert trainee.model.layers[0].intermediate.dense.first.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in parent.parameters())


@pytest.mark.parametrize(
    "config",
    [
        FEW,
        {"operator_sets": ["EF", "PF", "DEF"], "pipelines": ["O", "D", "F", "DPF"], "table2": ["O", "DPF"],
         "cumulativeness": [], "seeds": [1, 2]},
    ],
    ids=["one set", "with D and P"],
)  # fmt: skip
def test_the_plan_counts_the_jobs_of_a_dry_run(installed, tmp_path, config):
    jobs = planned(snakemake(tmp_path, "--dry-run", "all", config=config))
    del jobs["all"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    assert planned_jobs(tmp_path / "study.yaml") == jobs
    if config == FEW:
        assert jobs["train"] == 3 * len(("O", "E", "F", "EF", "FE"))


@pytest.fixture(scope="module")
def finished(site, tmp_path_factory):
    """A folder in which the small study of E and F was run, with one seed."""
    folder = tmp_path_factory.mktemp("study")
    write_two_layer_backbone(folder / "backbone", seed=0)
    study = STUDY | FEW | {"seeds": [1], "model": {"max_length": 40, "backbone": str(folder / "backbone")}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        run = snakemake(folder, "--cores", "2", "all")
    (folder / "output.txt").write_text(run.stdout + run.stderr)
    return folder


def test_the_study_has_its_table_its_figures_and_every_curve(finished):
    results = finished / "results"
    table = pd.read_csv(results / "table1.csv")
    assert set(table.operators) == {"EF"}
    assert table.n_pairs.sum() > 0
    assert "E+F" in (results / "table1.md").read_text()
    assert pd.read_csv(results / "table2.csv").pipeline.tolist() == ["O", "F"]
    for pipeline in ("E", "F", "EF", "FE"):
        curve = pd.read_csv(results / f"curves/generated-sentiment/{pipeline}/seed1.csv")
        assert curve.inference.fillna("").unique().tolist() == ["", "L", "Q", "LQ"]
        assert (results / f"onnx/generated-sentiment/{pipeline}/seed1/model-int8.onnx").exists()
    for figure in ("figure2", "figure3", "heatmap", "pareto"):
        assert (results / f"figures/{figure}.png").stat().st_size > 1000
    assert "train EF, generated-sentiment, seed 1" in (finished / "output.txt").read_text()


def test_models_are_of_the_declared_rank_and_their_costs_are_counted(finished):
    for pipeline in ("F", "EF", "FE"):
        folder = finished / f"results/models/generated-sentiment/{pipeline}/seed1"
        assert ModelShape.from_checkpoint(folder).ffn_rank == 16
        curve = pd.read_csv(finished / f"results/curves/generated-sentiment/{pipeline}/seed1.csv")
        # Half the rank of matrices of 32 x 64: a quarter less.
        assert curve.flops_relative.max() < 1
    record = json.loads((folder / "training.json").read_text())
    assert record["parameters"]["training"]["epochs"] == 1
    assert record["packages"]["pipeops-low-rank"] == "0.1.0"


def test_a_setting_of_f_retrains_f_and_what_comes_after_it(installed, finished):
    run = snakemake(finished, "--dry-run", "all", config={"low_rank": {"keep_rank": 0.25}})
    assert planned(run)["train"] == len(("F", "EF", "FE"))


def test_a_raised_revision_retrains_f_and_what_comes_after_it(site, finished, tmp_path, monkeypatch):
    shutil.copytree(site, tmp_path / "site")
    declaration = tmp_path / "site/pipeops_low_rank/__init__.py"
    declaration.write_text(declaration.read_text().replace("section=", "revision=2, section="))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    run = snakemake(finished, "--dry-run", "results/table1.csv")
    assert planned(run)["train"] == len(("F", "EF", "FE"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FEW | {"low_rank": {"keep_rank": 2}}, "low_rank.keep_rank: input should be less than or equal to 1"),
        (FEW | {"low_rank": {"keep": 0.5}}, "unknown key 'low_rank.keep' (did you mean 'keep_rank'?)"),
        (FEW | {"low_rank": {"keep_rank": 0.001}}, "low_rank.keep_rank: 0.001 of 128 rounds to none"),
        (
            FEW | {"operator_sets": ["PF"], "pruning": {"keep_ffn": 0.1}},
            "PF and FP make models of different shapes, but a set of operators has one price",
        ),
        (FEW | {"operator_sets": ["DF"]}, "operator set 'DF' has only one ordering (DF)"),
        (FEW | {"pipelines": ["FD"]}, "D cannot come after F: a new student throws the factorisation away"),
        (FEW | {"pipelines": ["FC"]}, "C cannot come after F: C judges FFN neurons by matrices"),
        (FEW | {"pipelines": ["CF"]}, "F cannot come after C: C has chosen its own width and rank"),
    ],
)
def test_bad_configuration_is_one_line(installed, tmp_path, config, message):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    run = pipeops("plan", "--configfile", tmp_path / "study.yaml", "--examples-per-second", 1)
    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_without_the_package_the_letter_is_unknown(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(FEW))
    run = pipeops("plan", "--configfile", tmp_path / "study.yaml", "--examples-per-second", 1)
    assert run.returncode == 1
    assert (
        "operator_sets: operator set 'EF': unknown letter 'F'; known are O, V, D, P, E, C, L, Q" in run.stderr
    )
    assert "Traceback" not in run.stderr


def test_settings_out_of_range_are_refused_by_the_job(installed, tmp_path):
    run = train(tmp_path, "--settings", json.dumps({"low_rank": {"keep_rank": 2}}))
    assert run.returncode == 1
    assert run.stderr == "error: low_rank.keep_rank: input should be less than or equal to 1 (got 2)\n"


def test_pruning_after_factorisation(installed, finished, tmp_path):
    """P takes neurons out of factorised matrices."""
    parent = finished / "results/models/generated-sentiment/F/seed1"
    exits = {"pooling": ModelShape.from_checkpoint(parent).pooling}
    command = ["--seed", 1, "--state", tmp_path, "--parent", parent, "--output", tmp_path / "FP"]
    command += ["--settings", json.dumps({"exits": exits})]
    data = finished / "results/data/generated-sentiment/train.parquet"
    run = pipeops("train", "P", "--backbone", finished / "backbone", "--data", data, *command)
    assert run.returncode == 0, run.stderr
    shape = ModelShape.from_checkpoint(tmp_path / "FP")
    assert (shape.ffn_rank, shape.ffn_per_layer) == (16, (32, 32))


def train(folder, *options):
    """Train F on a parent that is not there: what is refused must be refused before."""
    places = {"--backbone": "b", "--data": "d", "--output": "o", "--parent": "p"}
    named = [text for option, name in places.items() for text in (option, folder / name)]
    return pipeops("train", "F", "--seed", 1, *named, *options)
