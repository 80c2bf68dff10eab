"""The workflow through its Slurm profile, on a real Slurm that is started here."""

import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack

import pandas as pd
import pytest
import yaml
from helpers import ROOT, STUDY, snakemake, write_two_layer_backbone

from cluster import slurm

pytestmark = pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing())

SITE = {
    "gpus_per_training": "0",
    "measuring_cores": "2",
    "exports_at_once": "2",
    "status_command": '"squeue"',
    "seconds_between_checks": "2",
}
"""What a site must adapt, for the Slurm that is started here."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with ExitStack() as stack:
        try:
            started = stack.enter_context(slurm.cluster(tmp_path_factory.mktemp("slurm")))
        except (OSError, LookupError) as error:  # no user munge, no ports, no right to start daemons
            pytest.skip(f"Slurm cannot be started here: {error}")
        yield started


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study small enough for a cluster of this size."""
    folder = tmp_path_factory.mktemp("backbone")
    write_two_layer_backbone(folder, seed=0)
    operators = {"O": {"epochs": 1}, "E": {"epochs": 40}}  # E takes long enough to be killed
    training = {"epochs": 1, "batch_size": 8, "checkpoint_every": 0.02, "operators": operators}
    return STUDY | {
        "seeds": [1],
        "pipelines": ["O", "D", "E"],
        "table2": ["O"],
        "training": training,
        "model": {"backbone": str(folder), "max_length": 40},
    }


@pytest.fixture(scope="module")
def local(study, tmp_path_factory):
    """The same study without Slurm."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    snakemake(folder, "--cores", "2", "results/table1.csv", "results/table2.csv")
    return folder


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """The profile, with the top of the file adapted."""
    return adapted(tmp_path_factory.mktemp("profile"), **SITE)


def adapted(folder, **changes):
    text = (ROOT / "profiles/slurm/config.yaml").read_text()
    for name, value in changes.items():
        text, count = re.subn(rf"(?m)^  - {name} = [^#\n]*", f"  - {name} = {value} ", text)
        assert count == 1, name
    (folder / "config.yaml").write_text(text)
    return folder


def through_slurm(folder, profile, *targets):
    """Start Snakemake with the profile; the caller waits."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--workflow-profile", str(profile)]
    command += ["--configfile", str(ROOT / "config.yaml"), str(folder / "study.yaml"), "--", *targets]
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=output)


def finish(process, folder):
    assert process.wait(timeout=900) == 0, (folder / "output.txt").read_text()[-4000:]


def same_results(one, two):
    """Weights are the same bytes, and so are all columns that are not times."""
    for model in sorted(one.glob("results/models/*/*/seed1/model.safetensors")):
        assert model.read_bytes() == (two / model.relative_to(one)).read_bytes(), model
    for path in sorted(one.glob("results/curves/*/*/seed1.csv")):
        columns = ["inference", "threshold", "accuracy", "mean_exit_layer", "flops", "parameters"]
        tables = [pd.read_csv(folder / path.relative_to(one))[columns] for folder in (one, two)]
        pd.testing.assert_frame_equal(*tables)
    for name in ("table1", "table2"):
        tables = [pd.read_csv(folder / f"results/{name}.csv") for folder in (one, two)]
        words = [table.select_dtypes(exclude="float") for table in tables]
        pd.testing.assert_frame_equal(*words)
    accuracies = [pd.read_csv(f / "results/table2.csv")[["acc_raw_mean", "acc_q_mean"]] for f in (one, two)]
    pd.testing.assert_frame_equal(*accuracies)


@pytest.fixture(scope="module")
def remote(study, profile, running, tmp_path_factory):
    """The study, run through Slurm."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    targets = ("results/table1.csv", "results/table2.csv")
    finish(through_slurm(folder, profile, *targets), folder)
    return folder


def test_results_are_those_of_a_local_run(local, remote):
    same_results(local, remote)
    assert (
        "Submitted job" in (remote / "output.txt").read_text()
        or "SLURM" in (remote / "output.txt").read_text()
    )


def test_a_node_that_dies_in_the_middle_of_a_training(local, remote, profile, running, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(remote, folder)
    for part in ("models", "onnx", "answers", "curves"):
        shutil.rmtree(folder / f"results/{part}/generated-sentiment/DE")
    for table in ("curves/generated-sentiment/DE.csv", "table1.csv"):
        (folder / "results" / table).unlink()
    process = through_slurm(folder, profile, "results/table1.csv")
    state = folder / ".pipeops/state"
    deadline = time.monotonic() + 300
    while not list(state.glob("*/*/checkpoint-*/SHA256SUMS")):
        assert time.monotonic() < deadline, (folder / "output.txt").read_text()[-3000:]
        assert process.poll() is None, (folder / "output.txt").read_text()[-3000:]
        time.sleep(0.1)
    [node] = set(running.run("squeue", "-h", "-t", "running", "-o", "%N").split())
    running.kill_node(node)
    finish(process, folder)
    same_results(local, folder)
    assert "resuming at checkpoint-" in (folder / "logs/models/generated-sentiment/DE/seed1.log").read_text()


def test_a_training_that_runs_out_of_time_saves_and_resumes_there(study, remote, running, tmp_path):
    """Two minutes for a training of many. Slurm sends its signal up to a minute earlier than asked."""
    folder = tmp_path / "short"
    shutil.copytree(remote, folder)
    training = study["training"] | {"operators": {"E": {"epochs": 10_000}}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study | {"training": training}))
    (tmp_path / "profile").mkdir()
    profile = adapted(tmp_path / "profile", **SITE) / "config.yaml"
    text, count = re.subn("--signal=TERM@120", "--signal=TERM@5", profile.read_text())
    assert count == 1
    profile.write_text(
        text.replace("slurm_partition: ?gpu_partition\n", "slurm_partition: ?gpu_partition\n    runtime: 2\n")
    )
    target = "results/models/generated-sentiment/E/seed1/model.safetensors"
    process = through_slurm(folder, profile.parent, target)
    log, said, deadline = folder / "logs/models/generated-sentiment/E/seed1.log", [], time.monotonic() + 600
    wanted = (r"^terminated: saved at step ([\d,]+) of ", r"^resuming at checkpoint-(\d+)$")
    try:
        while len(said) < len(wanted):
            assert time.monotonic() < deadline, (folder / "output.txt").read_text()[-3000:]
            assert process.poll() is None, (folder / "output.txt").read_text()[-3000:]
            text = log.read_text() if log.exists() else ""
            if found := re.search(wanted[len(said)], text, flags=re.MULTILINE):
                said.append(int(found[1].replace(",", "")))
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
        running.run("scancel", "--user", "root")
    saved, resumed = said
    assert saved == resumed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu_partition": '"nowhere"'}, "nowhere"),
        ({"cpu_partition": '""'}, "cpu_partition is empty; name one that `sinfo` lists"),
        ({"gpus_per_training": "1"}, "Invalid generic resource"),
    ],
)
def test_a_profile_that_does_not_fit_the_site(study, running, tmp_path, changes, message):
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "profile").mkdir()
    profile = adapted(tmp_path / "profile", **(SITE | changes))
    process = through_slurm(folder, profile, "results/table1.csv")
    assert process.wait(timeout=240) != 0
    output = (folder / "output.txt").read_text()
    assert message in output
    assert "Traceback" not in output
