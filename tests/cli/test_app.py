"""Every command as a user types it: what it prints, what it leaves behind, and one paragraph for each mistake."""

from __future__ import annotations

import json
import re
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from transformers import AutoModel, AutoModelForImageClassification

import hf_transfer.cli
from hf_transfer.hub import retry
from hf_transfer.ranking import Ranking
from hf_transfer.runs.saving import read_results
from tests import tiny
from tests.runs.folders import ARCHITECTURE, QUICK

ADAPT = ["adapt", "--model", "vit", "--dataset", "digits", "--test_rows", "20", "--output_dir", "out", *QUICK]


class Result:
    """What one command did."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    @property
    def metrics(self) -> dict[str, float]:
        """The JSON that ends the output."""
        return json.loads(self.out[self.out.rindex("\n{\n") :] if "\n{\n" in self.out else self.out)

    @property
    def message(self) -> str:
        """The one paragraph of a refused command."""
        assert self.code == 2 and "Traceback" not in self.err, self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("hf-transfer: ")]
        assert self.err.rstrip().endswith(line), "nothing follows the message"
        return line


@pytest.fixture
def run(run, monkeypatch):
    """Runs `hf-transfer` with the given words."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: Result(*run(*map(str, words)))


@pytest.fixture
def no_training(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr("transformers.Trainer.train", fail)


def plain(text: str) -> str:
    """The text without colours, boxes and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


# rank


def test_dashes_and_underscores_are_one_in_every_command(here, run):
    assert run("rank", "vit", "--dataset", "digits", "--max_samples", "40", "--output_dir", "r").code == 0
    assert Ranking.load("r").settings["dataset_rows"] == 40
    assert run("evaluate", "vit", "--dataset", "digits", "--batch_size", "40").code == 0
    assert run(*(word.replace("_", "-") if word.startswith("--") else word for word in ADAPT)).code == 0
    assert run(*ADAPT, "--overwrite", "--from_ranking", "nowhere").code == 2
    assert "--from-ranking" in plain(run("adapt", "--help").out)


def test_rank_prints_and_saves_the_ranking(here, run):
    result = run("rank", "flow", "vit", "--dataset", "digits", "--output-dir", "ranking")
    assert result.code == 0
    ranking = Ranking.load("ranking")
    assert {row.model for row in ranking.scored} == {"flow", "vit"}
    assert ranking.scored[0].score > ranking.scored[1].score
    assert "Ranking by logme" in result.out and "Saved to ranking." in result.out
    words = " ".join(result.out.split())
    assert all(sentence in words for sentence in ranking.in_words())
    assert result.err.endswith("Next:\n  hf-transfer adapt --from-ranking ranking --dataset digits\n")
    # a score by which both are alike agrees with none
    assert "kNN accuracy" in words or "linear probe accuracy" in words


def test_rank_as_json_is_the_ranking_alone(here, run):
    result = run("rank", "vit", "--dataset", "digits", "--score", "h_score", "--json", "--parallel", "models")
    assert json.loads(result.out)["best"] == "vit" and "Next" not in result.err


def test_the_options_of_rank_reach_the_ranking(here, run):
    options = ["--score", "h_score", "--pooling", "cls", "--max-samples", "40", "--seed", "3", "--layers", "-1,-2"]
    sizes = {name: AutoModel.from_pretrained(name).num_parameters() for name in ("vit", "flow")}
    small, large = sorted(sizes, key=sizes.get)
    options += [
        "--batch-size",
        "16",
        "--max-params",
        str(sizes[small]),
        "--label-column",
        "label",
        "--input-column",
        "image",
    ]
    assert run("rank", "vit", "flow", "--dataset", "digits", *options, "--output-dir", "r").code == 0
    ranking = Ranking.load("r")
    assert ranking.score == "h_score" and ranking.settings["dataset_rows"] == 40
    assert (ranking.settings["pooling"], ranking.settings["seed"]) == ("cls", 3)
    assert sorted(ranking.best.layers) == [1, 2] and ranking.best.batch_size == 16
    assert [row.model for row in ranking.rows] == [small, large]
    assert "more than `max_params`" in ranking.rows[1].reason


def test_models_of_a_query_that_are_too_large_are_rows(here, run, hub):
    sizes = {name: AutoModelForImageClassification.from_pretrained(name).num_parameters() for name in ("vit", "flow")}
    small, large = sorted(sizes, key=sizes.get)
    for name in sizes:
        hub.add_folder(f"lab/{name}", here / name)
    # The Hub counts the head too.
    most = ["--max-params", str(sizes[small])]
    words = ["--dataset", "digits", "--max-samples", "40", "--author", "lab", *most]
    assert run("rank", *words, "--cache-dir", "cache", "--output-dir", "r").code == 0
    rows = {row.model: row for row in Ranking.load("r").rows}
    assert rows[f"lab/{small}"].score is not None
    assert "more than `max_params`" in rows[f"lab/{large}"].reason


def test_rank_asks_the_hub(here, run, hub, tmp_path):
    for name in ("vit", "flow"):
        hub.add_folder(f"lab/{name}", here / name, tags=("tiny",))
    hub.add_folder("lab/other", here / "vit")
    Path("names.txt").write_text("lab/other  # by name\n")
    query = ["--author", "lab", "--search", "i", "--filter", "tiny", "--max-params", "100000", "--limit", "5"]
    kept = ["--cache-dir", "cache", "--free-disk", "--output-dir", "r"]
    words = ["rank", "names.txt", "--dataset", "digits", "--max-samples", "40", *query, *kept]
    assert run(*words).code == 0
    assert {row.model for row in Ranking.load("r").scored} == {"lab/vit", "lab/other"}
    assert not list(Path("cache").glob("models--*"))
    hub.requests.clear()
    assert run(*words, "--resume").code == 0
    assert not any("resolve" in request["path"] for request in hub.requests), "nothing is pulled again"


@pytest.mark.parametrize("trusted", [False, True])
def test_a_models_own_code_runs_when_trusted(here, run, trusted):
    shutil.copytree("flow", "own")
    config = json.loads(Path("own/config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.OwnConfig", "AutoModel": "code.OwnModel"}}
    Path("own/config.json").write_text(json.dumps(config))
    Path("own/code.py").write_text(
        "from hf_transfer.models.flowformer import FlowformerConfig, FlowformerModel\n"
        "class OwnConfig(FlowformerConfig):\n    model_type = 'own'\n"
        "class OwnModel(FlowformerModel):\n    config_class = OwnConfig\n"
    )
    result = run("rank", "own", "vit", "--dataset", "digits", *["--trust-remote-code"] * trusted)
    assert result.code == 0
    assert ("own was not scored" in plain(result.out)) is not trusted


def test_a_model_that_fails_is_a_row_with_its_reason(here, run):
    result = run("rank", "vit", "digits", "nowhere", "--dataset", "digits")
    assert result.code == 0
    assert "digits was not scored: digits is a folder without config.json" in plain(result.out)
    assert "nowhere was not scored" in plain(result.out)


@pytest.mark.parametrize(
    "words, message",
    [
        (["digits", "--dataset", "digits"], "no model could be scored"),
        (["vit", "--dataset", "nowhere"], "cannot load the dataset `nowhere`"),
        (["vit", "--dataset", "nowhere.csv"], "there is no file `nowhere.csv`"),
        (["vit", "--dataset", "digits", "--split", "tset"], "has no split `tset`"),
        (["vit", "--dataset", "digits", "--score", "luck"], "luck"),
        (["vit", "--dataset", "digits", "--layers", "none"], "`layers` should be one of"),
        (["vit", "--dataset", "digits", "--output-dir", "vit"], "is not empty"),
        (["--dataset", "digits"], "`models` names no candidates"),
    ],
)
def test_mistakes_in_rank(here, run, words, message):
    assert message in run("rank", *words).message


def test_rank_refuses_a_way_of_sharing_that_is_none(here, run):
    assert "`parallel` should be one of" in run("rank", "vit", "--dataset", "digits", "--parallel", "rows").message


def test_a_saved_ranking_is_replaced_when_told(here, run):
    words = ["rank", "vit", "--dataset", "digits", "--max-samples", "30", "--output-dir", "r"]
    assert run(*words).code == 0
    assert "`r` holds a ranking: go on with --resume, start over with --overwrite" in run(*words).message
    assert run(*words, "--overwrite").code == 0


# adapt and pretrain


def test_adapt_prints_the_metrics_it_saved(here, run):
    result = run(*ADAPT, "--objectives", "{l2_sp: {}, bss: {}}")
    assert result.code == 0 and result.metrics == read_results("out/model")


def test_adapt_with_lora(here, run):
    result = run(*ADAPT, "--peft", "{peft_type: LORA, r: 2, target_modules: all-linear}")
    assert result.code == 0 and 0 <= result.metrics["accuracy"] <= 1
    assert Path("out/model/adapter_config.json").is_file()


def test_adapt_to_a_domain_from_a_file_with_overrides(here, run):
    settings = {"dataset": "digits", "target_dataset": "more_digits", "test_rows": 20, "model": "flow", "seed": 3}
    settings |= {"objectives": {"dann": {}}, "max_steps": 90, "report_to": [], "use_cpu": True, "output_dir": "x"}
    settings |= {"diagnostics": False}
    Path("domain.yaml").write_text(yaml.safe_dump(settings))
    result = run("adapt", "domain.yaml", "--max_steps=1", "--save_strategy", "no", "--output_dir", "out")
    assert result.code == 0 and "information_maximization" in result.metrics
    assert "seed" in Path("out/model/README.md").read_text() and not Path("x").exists()


@pytest.mark.parametrize("start", [{"model": "nowhere"}, {"architecture": ARCHITECTURE}])
def test_adapt_starts_from_the_best_of_a_ranking_whatever_the_file_names(here, run, monkeypatch, start):
    run("rank", "vit", "flow", "--dataset", "digits", "--output-dir", "ranking")
    best = Ranking.load("ranking").best.model
    Path("task.yaml").write_text(yaml.safe_dump({"dataset": "digits", "test_rows": 20, "output_dir": "out", **start}))
    result = run("adapt", "task.yaml", "--from-ranking", "ranking", *QUICK)
    assert result.code == 0
    adapted = AutoModelForImageClassification.from_pretrained("out/model")
    assert adapted.config.model_type == AutoModelForImageClassification.from_pretrained(best).config.model_type
    assert f"Starts from `{best}`" in Path("out/model/README.md").read_text()


def test_pretrain_masked_images_then_evaluate_without_a_head(here, run):
    task = ["--task", "masked-image-modeling", "--architecture", json.dumps(ARCHITECTURE)]
    result = run("pretrain", *task, "--dataset", "digits", "--test_rows", "16", "--output_dir", "mim", *QUICK)
    assert result.code == 0 and result.metrics["loss"] > 0
    message = run("evaluate", "mim/model", "--dataset", "digits").message
    assert "`mim/model` lacks weights for image-classification" in message and "adapt it first" in message


def test_a_second_run_into_the_same_folder_is_refused_and_overwritten_when_told(here, run):
    assert run(*ADAPT).code == 0
    assert "holds the model of an earlier run: go on with --resume, start over with --overwrite" in run(*ADAPT).message
    assert run(*ADAPT, "--overwrite").code == 0


@pytest.mark.parametrize(
    "words, message",
    [
        (["--lerning_rate", "1"], "unknown arguments ['lerning_rate']; `hf-transfer adapt --explain` lists"),
        (["--dataset", "nowhere"], "cannot load the dataset `nowhere`: it is not a bundled name"),
        (["--resume", "--overwrite"], "`resume` keeps what is in output_dir and `overwrite` replaces it"),
        (["--peft", "{peft_type: LORE}"], "`peft` should name a `peft_type` of ["),
        (["--peft", "{r: 2}"], "`peft` should name a `peft_type` of ["),
        (["--model", "digits"], "cannot load `digits` for image-classification"),
        (["--model", "nowhere"], "cannot load `nowhere` for image-classification"),
        (["--architecture", "{model_type: vit}"], "give either `model`"),
        (["--objectives", "{mcc: {temp: 1}}"], "objective `mcc`"),
        (["--objectives", "{mcc"], "`objectives` cannot be read as YAML"),
        (["--max_steps", "ten"], "`max_steps` should be a whole number, got 'ten'"),
        (["--from-ranking", "nowhere"], "nowhere holds no ranking.json"),
        (["--top", "4"], "`--top` says how many models are combined: give `--combine METHOD` too"),
        (["--save_strategy", "sometimes"], "sometimes"),
        (["config.yaml"], "expected `--key value`, got `config.yaml`"),
    ],
)
def test_mistakes_in_adapt(here, run, no_training, words, message):
    assert message in run(*ADAPT, *words).message


@pytest.mark.parametrize(
    "words, message",
    [
        (["none.yaml"], "there is no file `none.yaml`"),
        (["--model", "vit"], "`dataset` is missing"),
        (["--dataset", "digits"], "give either `model`"),
        (["--dataset", "digits", "--architecture", "{hidden_size: 8}"], "should name a `model_type`"),
    ],
)
@pytest.mark.parametrize("command", ["adapt", "pretrain"])
def test_mistakes_in_what_a_run_is_of(here, run, no_training, command, words, message):
    assert message in run(command, *words).message


# evaluate


def test_evaluate_gives_what_adapt_gave(here, run):
    adapted = run(*[word for word in ADAPT if word not in ("--test_rows", "20")], "--test_dataset", "more_digits")
    result = run("evaluate", "out/model", "--dataset", "more_digits", "--batch-size", "7")
    assert result.metrics == pytest.approx(adapted.metrics, rel=1e-5)


@pytest.mark.parametrize(
    "words, message",
    [
        (["headless", "--dataset", "digits"], "`headless` lacks weights for image-classification"),
        (["three", "--dataset", "digits"], "the evaluation dataset has 10 classes and the model 3"),
        (["bert", "--dataset", "digits"], "`image` holds images, and a bert model reads none"),
        (["bert", "--dataset", "digits", "--task", "text-classification"], "`image` holds images, and a bert model"),
        (["vit", "--dataset", "books.csv"], "the model's folder has no tokenizer"),
        (["vit", "--dataset", "nowhere"], "cannot load the dataset `nowhere`"),
        (["digits", "--dataset", "digits"], "cannot load `digits` for image-classification"),
        (["vit", "--dataset", "digits", "--task", "dancing"], "unknown task `dancing`"),
    ],
)
def test_mistakes_in_evaluate(here, run, words, message):
    assert message in run("evaluate", *words).message


# push and doctor


def test_push_sends_the_folder_with_its_card(here, run, hub, monkeypatch):
    assert run(*ADAPT).code == 0
    result = run("push", "out/model", "lab/digits", "--private", "--commit-message", "First")
    assert result.code == 0 and f"Published: {hub.endpoint}/lab/digits/commit/" in result.out
    assert result.err.endswith("Next:\n  hf-transfer pull lab/digits\n")
    again = json.loads(run("push", "out/model", "lab/digits", "--json").out)
    assert again["repo_id"] == "lab/digits" and again["commit_url"].startswith(again["repo_url"] + "/commit/")
    sent = hub.files("lab/digits")
    assert sent.keys() >= {"README.md", "config.json", "model.safetensors", "results.json"}
    assert sent["model.safetensors"] == Path("out/model/model.safetensors").read_bytes()


def test_push_with_the_source_of_a_flowformer(here, run, hub):
    tiny.flowformer().save_pretrained("ours")
    Path("ours/README.md").write_text("---\nlicense: mit\n---\n")
    assert run("push", "ours", "lab/ours", "--with-code").code == 0
    sent = hub.files("lab/ours")
    assert {"modeling_flowformer.py", "configuration_flowformer.py"} <= sent.keys()
    assert json.loads(sent["config.json"])["auto_map"]["AutoModel"] == "modeling_flowformer.FlowformerModel"
    assert "should hold a Flowformer, got `model_type='vit'`" in run("push", "vit", "lab/vit", "--with-code").message


def test_adapt_publishes_when_the_arguments_say_so(here, run, hub):
    assert run(*ADAPT, "--push_to_hub", "--hub_model_id", "lab/adapted").code == 0
    assert b"AutoModelForImageClassification.from_pretrained" in hub.files("lab/adapted")["README.md"]


def test_mistakes_in_push(here, run, hub, monkeypatch):
    monkeypatch.setattr(retry, "sleep", lambda seconds: None)
    shutil.copytree("vit", "bare")
    assert "nowhere is no folder" in run("push", "nowhere", "lab/digits").message
    assert "digits is no model folder" in run("push", "digits", "lab/digits").message
    assert "bare has no model card" in run("push", "bare", "lab/digits").message
    Path("bare/README.md").write_text("---\nlicense: mit\n---\n")
    assert "is no repository name" in run("push", "bare", "no such name").message
    monkeypatch.delenv("HF_TOKEN")
    assert "no access token was found" in run("push", "bare", "lab/digits").message


def test_doctor(run):
    result = run("doctor", "python", "devices")
    assert result.code == 0 and "2 fine" in result.out
    assert "There is no check 'gpu'" in run("doctor", "gpu").message


def test_divergence_prints_the_tables_it_saved(here, run, monkeypatch):
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    words = ["--source", "digits", "--target", "more_digits", "--splits", "1", "--max-samples", "20"]
    result = run("divergence", "vit", *words, "--output-dir", "out")
    assert result.code == 0 and Path("out/divergence.md").read_text() in result.out
    assert "hf-transfer adapt --model vit --dataset digits --target_dataset more_digits" in result.err
    assert "is not empty" in run("divergence", "vit", *words, "--output-dir", "out").message
    assert run("divergence", "vit", *words, "--json").out.strip() == Path("out/divergence.json").read_text().strip()


def test_predict_writes_a_table(here, run):
    result = run("predict", "vit", "--dataset", "digits", "--output", "answers.csv")
    assert result.code == 0 and "Saved 80 predictions to answers.csv." in result.out
    assert Path("answers.csv").read_text().splitlines()[0] == "row,prediction,probability"
    assert "--overwrite" in run("predict", "vit", "--dataset", "digits", "--output", "answers.csv").message


def test_an_interrupted_run_says_how_to_go_on(here, run, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.Trainer.train", interrupt)
    result = run(*ADAPT)
    assert result.code == 130 and "Stopped. No checkpoint is in out yet" in result.err


# help


def test_without_a_command_the_commands_are_listed(run):
    result = run()
    text = plain(result.out + result.err)
    for command in ("pretrain", "adapt", "rank", "choose", "evaluate", "divergence", "push", "doctor"):
        assert command in text


@pytest.mark.parametrize(
    "command, words",
    [
        ("pretrain", ["[CONFIG.yaml]", "--explain"]),
        ("adapt", ["[CONFIG.yaml] [--key value ...]", "--from-ranking", "--explain"]),
        ("rank", ["MODELS", "--dataset", "--score", "--max-params", "--output-dir"]),
        ("evaluate", ["MODEL", "--dataset", "--split", "--task"]),
        ("choose", ["RANKINGS", "--budget", "--cost"]),
        ("divergence", ["MODEL", "--source", "--target", "--splits", "--output-dir"]),
        ("predict", ["MODEL", "--dataset", "--output"]),
        ("push", ["FOLDER", "REPO_ID", "--private"]),
        ("doctor", ["CHECKS"]),
    ],
)
def test_help(run, command, words):
    result = run(command, "--help")
    assert result.code == 0
    text = plain(result.out)
    assert [word for word in words if word.lower() not in text.lower()] == []


@pytest.mark.parametrize("command", ["adapt", "pretrain"])
def test_explain_lists_the_arguments_with_their_meaning(run, command):
    result = run(command, "--explain")
    text = plain(result.out)
    assert result.code == 0
    assert "objective_warmup" in text and "labels_per_class" in text and "Train on only so many rows" in text
    assert '{"peft_type": "LORA"' in text, "brackets and braces are not taken for markup"
    assert "Every field of transformers.TrainingArguments is an argument too" in text


@pytest.mark.parametrize("words", [["rank", "vit"], ["evaluate"], ["dance"], ["push", "a"]])
def test_missing_words_show_the_usage(run, words):
    result = run(*words)
    assert result.code == 2 and "Usage:" in plain(result.err) and "Traceback" not in result.err


def test_the_console_script_is_this_program():
    (script,) = entry_points(group="console_scripts", name="hf-transfer")
    assert script.load() is hf_transfer.cli.main


def test_the_home_folder_is_found_where_a_shell_leaves_it(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    shown = run("evaluate", "--dataset=~/rows.csv", "~/model")
    assert f"`{tmp_path}/rows.csv`" in shown.message


@pytest.mark.parametrize("words", [["--data.train", "x.csv"], ["--task.methods", "lora"]])
def test_a_list_in_place_of_a_section_is_told(run, tmp_path, words):
    (tmp_path / "plan.yaml").write_text("data: [train, books.csv]\ntask: [lora]\n")
    assert "should be a mapping, got [" in run("run", str(tmp_path / "plan.yaml"), *words).message
