"""The workflow as users run it: real Snakemake, in a folder of its own."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import ANYWHERE, ROOT, SNAKEMAKE, STUDY, planned, snakemake, write_two_layer_backbone

from pipeops.analysis.recommend import Budget
from pipeops.study.config import read_study
from pipeops.study.planning import plan
from pipeops.study.recommending import Asked, recommendation, verify


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the small study was run."""
    folder = tmp_path_factory.mktemp("study")
    model = {"max_length": 40}
    for seed, name in enumerate(("backbone", "student")):
        write_two_layer_backbone(folder / name, seed=seed)
        model[name] = str(folder / name)
    study = STUDY | {"model": model}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    run = snakemake(folder, "--cores", "2", "all")
    (folder / "output.txt").write_text(run.stdout + run.stderr)
    return folder


def test_table1_of_the_small_study(finished):
    table = pd.read_csv(finished / "results/table1.csv")
    columns = ["dataset", "metric", "operators", "pairs", "mean", "sd", "n_pairs", "p_value"]
    assert table.columns.tolist() == columns
    # Two orderings with two seeds: one same pair per ordering, two pairs of two seeds and two of one.
    assert table[["dataset", "operators", "pairs", "n_pairs"]].to_numpy().tolist() == [
        ["generated-sentiment", "DE", "same", 2],
        ["generated-sentiment", "DE", "different", 2],
        ["generated-sentiment", "DE", "one seed", 2],
    ]
    assert table["mean"].between(0, 100).all()
    assert table.p_value.isna().tolist() == [True, False, True]
    assert table.p_value[1] in (0.5, 1.0)  # two labellings
    output = (finished / "output.txt").read_text()
    assert "- D+E on generated-sentiment: " in (finished / "results/table1.md").read_text()
    for heading in (
        "# Table 1",
        "# Does the order of the operators matter?",
        "# Table 2",
        "# Can a pipeline be predicted from its parts?",
        "# How good is the recommendation?",
    ):
        assert heading in output


def test_table2_of_the_small_study(finished):
    table = pd.read_csv(finished / "results/table2.csv")
    assert table.pipeline.tolist() == ["O", "D", "P", "DP"]
    assert table.n_seeds.tolist() == [2] * 4
    savings = []
    for seed in (1, 2):
        curve = pd.read_csv(finished / f"results/curves/generated-sentiment/DP/seed{seed}.csv")
        time = curve.fillna({"inference": ""}).set_index("inference").time_relative
        left = time[["L", "Q", "LQ"]] / time[""]
        savings.append([100 * (1 - share) for share in (*left, left["L"] * left["Q"])])
    columns = ["saving_l_mean", "saving_q_mean", "saving_lq_mean", "saving_lq_est_mean"]
    assert table.loc[3, columns].tolist() == pytest.approx(
        [sum(pair) / 2 for pair in zip(*savings, strict=True)]
    )


def test_cumulativeness_of_the_small_study(finished):
    table = pd.read_csv(finished / "results/cumulativeness.csv", keep_default_na=False)
    curves = table.drop_duplicates(["pipeline", "inference", "seed"])
    assert len(curves) == 2 * 4 * 2
    assert set(table.operators) == {"DE"}
    estimates = {"compound", "priced", "another seed", "E itself"}
    assert set(table.estimate) == estimates
    assert len(table) == len(curves) * len(estimates) * len(STUDY["measuring"]["thresholds"])


def test_verdicts_stand_with_their_yardsticks_and_on_the_studys_page(finished):
    row = pd.read_csv(finished / "results/commutativity.csv").iloc[0]
    assert row[["priced_twice", "sampling_error", "bootstrap_low", "same_ordering"]].notna().all()
    trained = read_study([finished / "study.yaml"]).steps_of_orderings["generated-sentiment"]
    steps = f"Steps trained: DE {trained['DE']:,}, ED {trained['ED']:,}"
    for name in ("commutativity", "table1"):
        assert steps in (finished / f"results/{name}.md").read_text()
    assert "D+E on generated-sentiment: " in (finished / "results/study.html").read_text()


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    """The small study's prices and answers, as they are published."""
    folder = tmp_path_factory.mktemp("public") / "data"
    command = [sys.executable, "-m", "pipeops", "publish", str(folder), "--configfile", "study.yaml"]
    subprocess.run(command, cwd=finished, check=True)
    return folder


def test_all_results_are_made_from_published_answers(finished, published, tmp_path):
    readme = (published / "README.md").read_text()
    assert f"--configfile study.yaml --config answers={published} -- all" in readme
    shutil.copy(finished / "study.yaml", tmp_path)
    run = snakemake(tmp_path, "--cores", "2", "all", config={"answers": str(published)})
    rules = set(re.findall(r"^(\w+) +\d+$", run.stdout + run.stderr, flags=re.MULTILINE)) - {"total", "all"}
    assert rules == set(plan(read_study([finished / "study.yaml", tmp_path / "run.yaml"])).jobs)
    assert not {"train", "export", "evaluate", "price", "check", "backbone"} & rules
    tables = sorted(path.name for path in (finished / "results").glob("*.csv"))
    assert len(tables) == 6
    for table in tables:
        assert (tmp_path / "results" / table).read_bytes() == (finished / "results" / table).read_bytes(), (
            table
        )
    assert len(list((tmp_path / "results/figures").glob("*.png"))) == 7


def test_published_answers_are_priced_on_this_cpu_without_training(finished, published, tmp_path):
    shutil.copy(finished / "study.yaml", tmp_path)
    here, curve = {"answers": str(published), "prices_from": "here"}, "curves/generated-sentiment/O.csv"
    study = read_study([finished / "study.yaml"])
    priced = {pipeline.operators for pipeline in study.measured}
    prices = [f"prices/generated-sentiment/{operators}.csv" for operators in priced]
    jobs = planned(snakemake(tmp_path, "-n", "all", config=here))
    assert jobs.pop("all") == 1
    assert jobs == plan(read_study([finished / "study.yaml", tmp_path / "run.yaml"])).jobs
    assert jobs["price"] == len(prices)
    assert not {"train", "export", "evaluate", "check"} & set(jobs)
    snakemake(tmp_path, "--cores", "2", *(f"results/{path}" for path in (curve, *prices)), config=here)
    ours = pd.read_csv(tmp_path / "results/prices/generated-sentiment/O.csv", keep_default_na=False)
    [padded] = ours[ours.inference == ""]["time_ms"]
    measured = pd.read_csv(tmp_path / "results" / curve, keep_default_na=False)
    assert measured[measured.inference == ""]["time_ms"].unique() == pytest.approx([padded])
    # And, as of another CPU, from the folder that they were written to.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(finished / "study.yaml", elsewhere)
    there = here | {"prices_from": str(tmp_path / "results")}
    snakemake(elsewhere, "--cores", "2", f"results/{curve}", config=there)
    assert (elsewhere / "results" / curve).read_bytes() == (tmp_path / "results" / curve).read_bytes()


def test_a_study_recommends_and_what_it_lacks_is_named(finished):
    def ask(*arguments):
        command = [sys.executable, "-m", "pipeops", *arguments, "--configfile", "study.yaml"]
        return subprocess.run(command, cwd=finished, check=False, capture_output=True, text=True)

    listed = ask("predict").stdout
    assert re.search(r"^\| EDLQ +\| measured, 2", listed, flags=re.MULTILINE)
    every = json.loads(ask("predict", "--json").stdout)
    assert {row["kind"] for row in every} == {"measured"}  # D+E and its parts are what was priced
    assert {row["pipeline"] for row in every} == {"O", "D", "P", "E", "DE", "ED", "DP", "C"}
    answer = ask("recommend", "--max-time", "0.9").stdout.splitlines()
    assert re.match(
        r"Take \w+.*: [\d.]+% .* accuracy \(measured\) in .* ms \(.* of O's\) an input", answer[0]
    )
    assert answer[1] == "It is trained (seed 1)."
    for arguments, message in (
        (("--max-time", "1e-9"), "nothing meets this budget; nearest is "),
        (("--max-time", "soon"), "--max-time: 'soon' is no number"),
        ((), "no budget: give --max-time"),
        (("--max-time", "1", "--dataset", "sst2"), "--dataset: 'sst2' is not in the study"),
    ):
        run = ask("recommend", *arguments)
        assert run.returncode == 1
        assert re.fullmatch(rf"error: {message}.*\n", run.stderr)
    page = (ROOT / "docs/recommend.md").read_text()
    for command in re.findall(r"^pipeops (.*)$", page, flags=re.MULTILINE):
        # On times of milliseconds a budget may be met or not; the answer is one either way.
        run = ask(*command.split())
        assert run.stdout or run.stderr.startswith("error: nothing meets this budget")
    (finished / "nothing.yaml").write_text("pathvars: {results: elsewhere}\n")
    run = ask("predict", "--configfile", "nothing.yaml")
    assert re.match(
        r"error: elsewhere/prices/generated-sentiment: no prices; .*snakemake --cores 2 ", run.stderr
    )


def test_an_answer_is_verified_through_the_workflow(finished, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    for name in ("Snakefile", "workflow", "config.yaml"):
        (copy / name).symlink_to(ROOT / name)
    shutil.rmtree(copy / "results/answers/generated-sentiment/DE")
    monkeypatch.chdir(copy)
    asked = Asked.read([Path("study.yaml")], None)
    answer = recommendation(asked, Budget(max_time=10, max_drop=100))
    of_de = answer.ranked[answer.ranked["pipeline"] == "DE"]
    assert set(of_de["kind"]) == {"predicted"}
    found = verify(dataclasses.replace(answer, ranked=of_de), cores=2)
    curve = pd.read_csv("results/curves/generated-sentiment/DE/seed1.csv").fillna({"inference": ""})
    same = (curve.inference == of_de["inference"].iloc[0]) & (curve.threshold == of_de["threshold"].iloc[0])
    assert found.accuracy == pytest.approx(curve[same].accuracy.item())
    # Milliseconds are O's of the predictions, and not those of one set of operators.
    original_ms = found.expected["time_ms"] / found.expected["time_relative"]
    assert found.time_ms == pytest.approx(original_ms * curve[same].time_relative.item())


def test_recommendation_of_the_small_study(finished):
    table = pd.read_csv(finished / "results/recommendation.csv")
    chosen = table[table.rule == "predicted"]
    assert len(chosen) == 10
    assert set(chosen.trainings) == {5}  # O, D, P, E and C
    assert set(chosen.trainings_all) == {8}
    assert set(table.operators) == {"any", "DE"}


def test_publishing_again_changes_nothing_and_never_deletes(finished, published):
    command = [sys.executable, "-m", "pipeops", "publish", str(published), "--configfile", "study.yaml"]
    before = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    subprocess.run(command, cwd=finished, check=True)
    assert {path: path.read_bytes() for path in published.rglob("*") if path.is_file()} == before
    (published / "thesis.txt").write_text("mine")
    run = subprocess.run(command, cwd=finished, check=False, capture_output=True, text=True)
    (published / "thesis.txt").unlink()
    assert run.returncode == 1
    assert re.fullmatch(r"error: .*thesis.txt: is not of this study; .*\n", run.stderr)


def test_answers_of_another_study_are_refused_before_any_job(published, finished):
    run = snakemake(
        finished, "-n", "all", config={"answers": str(published), "seeds": [1, 2, 3]}, check=False
    )
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert re.search(r"answers: '.*/data' has no answers/generated-sentiment/\w+/seed3.parquet; name", output)
    assert "Traceback" not in output


def test_joint_training_of_the_small_study(finished):
    table = pd.read_csv(finished / "results/costeff.csv", keep_default_na=False)
    names = table[["pipeline", "inference", "n_seeds"]].to_numpy().tolist()
    assert names == [["O", "", 2], ["O", "LQ", 2], ["C", "", 2], ["C", "LQ", 2]]
    sizes = table.set_index(["pipeline", "inference"]).parameters_relative_mean.astype(float)
    assert sizes["O", ""] == 1
    assert sizes["C", "LQ"] == sizes["C", ""] < 1
    exits = pd.read_csv(finished / "results/curves/generated-sentiment/C/seed1.exits.csv")
    assert exits.exit_layer.tolist() == [1, 2] * 4


def test_without_c_there_is_nothing_to_compare(finished):
    config = {"pipelines": ["O", "D", "P", "E", "DP"]}
    run = snakemake(finished, "--dry-run", "results/costeff.csv", config=config, check=False)
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert "C is not measured, so there is nothing to compare it with; add it: pipelines: [O, D, P" in output
    assert "Traceback" not in output
    assert not {"costeff", "joint"} & set(planned(snakemake(finished, "--dry-run", "all", config=config)))


def test_a_setting_of_c_retrains_c_alone(finished):
    run = snakemake(finished, "--dry-run", "all", config={"costeff": {"importance": "last-exit"}})
    jobs = planned(run)
    assert (jobs["train"], jobs["export"], jobs["evaluate"]) == (2, 2, 2)
    assert "table1" not in jobs


def test_what_exits_see_retrains_what_has_exits(finished):
    for config, trained in (
        ({"exits": {"standardise": True}}, ("E", "DE", "ED", "C")),
        ({"training": {"exit_loss": "mean"}}, ("E", "DE", "ED", "C")),
    ):
        assert planned(snakemake(finished, "--dry-run", "all", config=config))["train"] == 2 * len(trained)
    everything = planned(snakemake(finished, "--dry-run", "all", config={"model": {"pooling": "first"}}))
    assert everything["train"] == 2 * len(("O", "D", "P", "E", "DE", "ED", "DP", "C"))


def test_the_report_in_a_browser(finished, tmp_path):
    driver = browser()
    snakemake(finished, "--report", "results/report.zip")
    with zipfile.ZipFile(finished / "results/report.zip") as archive:
        archive.extractall(tmp_path)
    report = (tmp_path / "report/report.html").as_uri()
    try:
        driver.get(report)
        assert "Efficiency operators on transformers" in page(driver)
        for (category, result, form), text in SHOWN.items():
            driver.get(report)
            click(driver, f"//a[contains(., '{category}')]")
            # Where a result has two forms only, they are a switch, set to the one meant here, and no column.
            form_if_shown = f"(td[.='{form}'] or count(td) < 3)"
            click(driver, f"//tr[td[.='{result}'] and {form_if_shown}]//a[@iconname='eye']")
            if form == "figure":
                figure = driver.find_element("css selector", "img[src*='data/raw']")
                assert driver.execute_script("return arguments[0].naturalWidth", figure) > 300, result
            else:
                driver.switch_to.frame(driver.find_element("css selector", "iframe"))
                assert text in page(driver)
        driver.get(report)
        click(driver, "//a[contains(., 'Statistics')]")
        assert driver.find_elements("css selector", "canvas, svg.marks"), "run times are drawn"
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        driver.quit()


SHOWN = {
    ("1 Commutativity", "Table 1", "table"): "does the order of the operators matter?",
    ("1 Commutativity", "Figure 2: orderings", "figure"): "",
    ("1 Commutativity", "Figure 3: orderings and seeds", "figure"): "",
    ("1 Commutativity", "Table 1 as a heat map", "figure"): "",
    ("1 Commutativity", "Verdicts", "table"): "Does the order of the operators matter?",
    ("2 Quantisation and dynamic length", "Table 2", "table"): "what do Q and L save",
    ("3 Cumulativeness", "Estimates", "table"): "Can a pipeline be predicted from its parts?",
    ("3 Cumulativeness", "Figure 4: estimates", "figure"): "",
    ("4 Joint training", "Joint against sequential", "table"): "joint training against operators one after",
    ("4 Joint training", "Joint against sequential: curves", "figure"): "",
    ("5 All pipelines", "Accuracy against time", "figure"): "",
    ("6 Recommendation", "Recommendation", "table"): "How good is the recommendation?",
    ("6 Recommendation", "Recommendation: regret", "figure"): "",
    ("7 Study", "Configuration and provenance", "page"): "most_rounds: 100",
}
"""What the report shows, by category, result and form, with a text that is on the page."""


def browser():
    """A headless Chromium, or a skipped test where there is none."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.implicitly_wait(10)
    return driver


def page(driver):
    return driver.find_element("css selector", "body").text


def click(driver, xpath):
    driver.execute_script("arguments[0].click()", driver.find_element("xpath", xpath))
    time.sleep(0.3)


def test_every_promised_file_is_there(finished):
    results = finished / "results"
    for pipeline in ("O", "D", "P", "E", "DE", "ED", "DP", "C"):
        for name in ("config.json", "model.safetensors", "training.json", "tokenizer.json"):
            assert (results / f"models/generated-sentiment/{pipeline}/seed1" / name).exists(), (
                pipeline,
                name,
            )
        for name in ("model.onnx", "model-int8.onnx"):
            assert (results / f"onnx/generated-sentiment/{pipeline}/seed2" / name).exists()
        curve = pd.read_csv(results / f"curves/generated-sentiment/{pipeline}/seed1.csv")
        assert curve.inference.fillna("").unique().tolist() == ["", "L", "Q", "LQ"]
    for table in ("table1", "commutativity", "table2", "cumulativeness", "costeff", "recommendation"):
        for form in ("csv", "md", "html", "json"):
            assert (results / f"{table}.{form}").stat().st_size > 100
    for figure in ("figure2", "figure3", "figure4", "heatmap", "pareto", "joint", "regret"):
        for form in ("png", "pdf"):
            assert (results / f"figures/{figure}.{form}").stat().st_size > 1000
    assert not list((finished / ".pipeops/state").glob("*"))


def test_one_seed_has_means_only_and_a_set_without_estimates_is_left_out(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    run = snakemake(copy, "--cores", "2", "all", config={"seeds": [1], "cumulativeness": []})
    assert "# Can a pipeline be predicted" not in run.stdout + run.stderr  # that table is of another run
    rules = (
        "table1", "commutativity", "table2", "costeff", "figure2", "figure3", "heatmap", "pareto", "joint",
        "recommendation", "regret", "study", "all",
    )  # fmt: skip
    assert planned(run) == dict.fromkeys(rules, 1) | {"curves": 8}
    assert pd.read_csv(copy / "results/table2.csv").acc_raw_sd.isna().all()
    for name in ("table1", "table2"):
        assert "one seed" in (copy / f"results/{name}.md").read_text()


def test_estimates_of_nothing_are_refused_before_anything_is_touched(finished):
    target = "results/figures/figure4.png"
    run = snakemake(finished, "--cores", "1", target, config={"cumulativeness": []}, check=False)
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert "config: cumulativeness: is empty, so nothing is estimated; name operator sets" in output
    assert "Traceback" not in output
    assert (finished / target).exists()


def test_a_second_run_does_nothing(finished):
    assert "Nothing to be done" in snakemake(finished, "--cores", "2", "all").stderr


def test_a_new_seed_plans_only_its_own_jobs(finished):
    run = snakemake(finished, "--dry-run", "results/table1.csv", config={"seeds": [1, 2, 3]})
    assert planned(run) == {"train": 5, "export": 2, "evaluate": 2, "curves": 2, "table1": 1}
    assert not re.search(r"(train|export|evaluate) .*, seed [12]", run.stdout + run.stderr)


@pytest.mark.parametrize(
    "config",
    [
        {"measuring": {"thresholds": [0, 0.6, 2]}},
        {"exits": {"confidence": "entropy"}},
        {"exits": {"confidence": "patience"}},
        {"measuring": {"allow_other_cpu": True}},
    ],
)
def test_another_rule_of_exits_runs_nothing_but_curves_and_analyses(finished, config):
    run = snakemake(finished, "--dry-run", "results/table1.csv", config=config)
    assert planned(run) == {"curves": 2, "table1": 1}


def test_another_margin_runs_one_table(finished):
    run = snakemake(finished, "--dry-run", "results/table1.csv", config={"commutativity": {"margin": 1.0}})
    assert planned(run) == {"table1": 1}
    run = snakemake(finished, "--dry-run", "all", config={"commutativity": {"margin": 1.0}})
    assert planned(run) == dict.fromkeys(("table1", "commutativity", "heatmap", "study", "all"), 1)


def test_keeping_checkpoints_or_not_runs_nothing_again(finished):
    run = snakemake(finished, "--dry-run", "all", config={"keep_checkpoints": False})
    assert planned(run) == {"study": 1, "all": 1}  # the study's page shows the configuration


def test_where_and_how_fast_a_training_runs_retrains_nothing(finished):
    elsewhere = {"device": "gpu", "gpu_slots": 2, "gpus_per_training": 2, "compiled": True}
    elsewhere |= {"checkpoint_every": 0.1}
    config = {"training": elsewhere, "prices": {"wait": 9}}
    run = snakemake(finished, "--dry-run", "all", config=config)
    assert planned(run) == {"study": 1, "all": 1}


def test_more_validation_examples_retrain_nothing(finished):
    run = snakemake(finished, "--dry-run", "results/table1.csv", config={"data": {"validation_examples": 50}})
    assert planned(run) == {"tokenise": 1, "price": 1, "evaluate": 4, "curves": 2, "table1": 1}


def test_another_pruning_leaves_the_rest_alone(finished):
    run = snakemake(finished, "--dry-run", "results/table1.csv", config={"pruning": {"keep_ffn": 0.3}})
    assert planned(run) == {}


def test_a_setting_of_one_operator_retrains_what_comes_after_it(finished):
    operators = STUDY["training"]["operators"] | {"E": {"epochs": 2}}
    config = {"training": {"operators": operators}}
    run = snakemake(finished, "--dry-run", "results/table1.csv", config=config)
    # E, ED and DE, per seed; D and O stay.
    assert planned(run)["train"] == 6


def test_without_checkpoints_less_disk_is_taken_and_results_are_the_same(finished, tmp_path):
    def megabytes(folder):
        files = [*folder.glob("results/models/**/*"), *folder.glob("results/onnx/**/*")]
        return sum(path.stat().st_size for path in files if path.is_file()) / 1e6

    shutil.copy(finished / "study.yaml", tmp_path)
    command = [
        *SNAKEMAKE,
        "--directory",
        str(tmp_path),
        "--cores",
        "2",
        "results/costeff.csv",
        "--configfile",
    ]
    command += [str(ROOT / "config.yaml"), str(tmp_path / "study.yaml"), "--config", "keep_checkpoints=false"]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0.0
    while run.poll() is None:
        try:
            peak = max(peak, megabytes(tmp_path))
        except FileNotFoundError:  # deleted while it was looked at
            continue
        time.sleep(0.2)
    assert run.returncode == 0
    assert megabytes(tmp_path) == 0
    kept = sum(
        path.stat().st_size / 1e6
        for pipeline in ("O", "C")
        for kind in ("models", "onnx")
        for path in finished.glob(f"results/{kind}/*/{pipeline}/*/*")
    )
    assert 0 < peak < kept
    for pipeline in ("O", "C"):
        for seed in (1, 2):
            name = f"results/curves/generated-sentiment/{pipeline}/seed{seed}.csv"
            columns = ["accuracy", "flops", "parameters"]
            ours, theirs = (pd.read_csv(folder / name)[columns] for folder in (tmp_path, finished))
            pd.testing.assert_frame_equal(ours, theirs)


def test_jobs_of_an_object_store_name_all_they_need(finished, tmp_path):
    pytest.importorskip("snakemake_storage_plugin_fs")
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed, by which the store's files are copied")
    store, folder = tmp_path / "store", tmp_path / "run"
    folder.mkdir()
    shutil.copy(finished / "study.yaml", folder)
    snakemake(
        *(folder, "--cores", "2", "results/table1.csv", "results/study.html"),
        *("--default-storage-provider", "fs", "--default-storage-prefix", str(store)),
        *("--shared-fs-usage", "none"),
        config={"seeds": [1], "pipelines": ["O", "C"], "table2": ["O"], "cumulativeness": []},
    )
    assert not list(folder.glob("results/**/*.*"))
    for pipeline in ("O", "DE", "ED", "C"):
        name = f"results/curves/generated-sentiment/{pipeline}.csv"
        columns = ["accuracy", "flops", "parameters"]
        ours, theirs = (pd.read_csv(root / name) for root in (store, finished))
        ours, theirs = (table[table.seed == 1][columns] for table in (ours, theirs))
        pd.testing.assert_frame_equal(ours, theirs)
    assert (store / "results/study.html").stat().st_size > 1000


def test_a_damaged_checkpoint_is_named_and_nothing_else_is_lost(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    weights = copy / "results/models/generated-sentiment/D/seed1/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    run = snakemake(copy, "--cores", "2", "results/table1.csv", check=False)
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert (
        "results/models/generated-sentiment/D/seed1/model.safetensors: damaged, its bytes are not" in output
    )
    assert "Traceback" not in output
    assert (copy / "results/models/generated-sentiment/ED/seed1/model.safetensors").exists()
    assert (copy / "results/curves/generated-sentiment/ED/seed2.csv").exists()


def test_a_table_of_curves_that_was_cut_off_is_named(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    curves = copy / "results/curves/generated-sentiment/DE.csv"
    curves.write_text(curves.read_text()[:-20])
    run = snakemake(copy, "--cores", "2", "results/table1.csv", check=False)
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert "results/curves/generated-sentiment/DE.csv" in output
    assert "delete it and make it anew" in output
    assert "Traceback" not in output
    assert curves.exists()
    curves.unlink()
    run = snakemake(copy, "--dry-run", "results/table1.csv")
    assert planned(run) == {"curves": 1, "table1": 1}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("answers/generated-sentiment/DE/seed2.parquet", "damaged, its bytes are not"),
        ("prices/generated-sentiment/DE.csv", "damaged, its bytes are not"),
    ],
)
def test_damaged_answers_and_prices_are_named(finished, tmp_path, file, message):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    damaged = copy / "results" / file
    damaged.write_bytes(damaged.read_bytes()[:-40])
    run = snakemake(copy, "--cores", "2", "results/table1.csv", check=False)
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert f"results/{file}: " in output
    assert message in output
    assert "Traceback" not in output
    for name in ("DE", "ED") if file.startswith("prices") else ("DE",):  # who reads it
        [line] = (copy / f"logs/curves/generated-sentiment/{name}.log").read_text().splitlines()
        assert line.startswith(f"error: results/{file}: ")
        assert line in output.splitlines()


@pytest.mark.parametrize(
    ("configuration", "results", "trainings"),
    [
        (None, "results", 72),
        ("paper", "results/paper", 240),
        ("sst2-minilm", "results/sst2-minilm", 72),
        ("length-matched", "results/length-matched", 72),
    ],
)
def test_every_shipped_configuration_plans_without_a_network(tmp_path, configuration, results, trainings):
    config = yaml.safe_load((ROOT / f"configs/{configuration}.yaml").read_text()) if configuration else {}
    run = snakemake(tmp_path, "--dry-run", f"{results}/table1.csv", config=config)
    jobs = planned(run)
    assert jobs["train"] == trainings
    assert jobs.get("student", 0) == int(configuration == "paper")
    assert f"Missing output files: {results}/table1.csv" in run.stdout + run.stderr


@pytest.mark.parametrize(
    "config",
    [
        {},
        yaml.safe_load((ROOT / "configs/paper.yaml").read_text()),
        yaml.safe_load((ROOT / "configs/sst2-minilm.yaml").read_text()),
        {"operator_sets": ["DE"], "pipelines": [], "table2": ["DE"], "cumulativeness": [], "seeds": [7]},
        {"datasets": ["generated-sentiment", "generated-paraphrase"], "joint": ["O", "C"]},
    ],
    ids=["default", "paper", "sst2-minilm", "few", "two datasets"],
)
def test_a_plan_counts_the_jobs_of_every_rule(tmp_path, config):
    jobs = planned(snakemake(tmp_path, "--dry-run", "all", config=config))
    del jobs["all"]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(config))
    assert jobs == plan(read_study([tmp_path / "plan.yaml"])).jobs


def test_bad_configuration_is_one_line_without_a_traceback(tmp_path):
    run = snakemake(tmp_path, "--dry-run", config={"sedes": [1]}, check=False)
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert "unknown key 'sedes' (did you mean 'seeds'?)" in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("pipeline", ["CD", "PC", "PD", "OE"])
def test_a_path_of_no_pipeline_is_refused_without_a_traceback(tmp_path, pipeline):
    target = f"results/curves/generated-sentiment/{pipeline}.csv"
    run = snakemake(tmp_path, "--dry-run", target, check=False)
    assert run.returncode != 0
    assert "MissingRuleException" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_lint():
    # What is installed is locked in requirements.lock: one environment for all rules, on purpose.
    run = subprocess.run([*SNAKEMAKE, "--lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    findings = re.findall(r"^ {4}\* (.*)$", run.stdout + run.stderr, flags=re.MULTILINE)
    assert set(findings) == {"Specify a conda environment or container for each rule.:"}


def test_the_snakefile_imports_nothing_heavy():
    script = "import sys, pipeops.study.config, pipeops.study.planning; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets", "onnxruntime", "pandas"} & set(run.stdout.split())


def test_real_data_and_a_real_encoder(glue, minilm, tmp_path):
    """The SST-2 study as its file says, on few examples, up to E's curve."""
    config = yaml.safe_load((ROOT / "configs/sst2-minilm.yaml").read_text())
    few = {"train_examples": 64, "validation_examples": 40}
    settings = ["--config", f"glue={glue}", f"model={{backbone: {minilm}}}"]
    target = "results/sst2-minilm/curves/sst2/E.csv"
    config |= {"data": few, "training": {"epochs": 1, "batch_size": 16, "operators": {"O": {"epochs": 1}}}}
    config |= {"seeds": [1], "prices": ANYWHERE}
    snakemake(tmp_path, "--cores", "2", target, *settings, config=config)
    curve = pd.read_csv(tmp_path / target)
    assert len(curve) == 4 * 18
    plain = curve[curve.inference.isna()]
    assert plain.mean_exit_layer.iloc[[0, -1]].tolist() == [1, 6]
    assert plain.flops_relative.iloc[0] < 0.5 < plain.flops_relative.iloc[-1]
