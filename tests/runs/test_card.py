"""The card of a run says what was trained, on which rows it was measured, and how it was chosen."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_transfer.hub import HubError, PlotFact
from hf_transfer.ranking import Ranking, RankingRow
from hf_transfer.ranking.score import Score
from hf_transfer.runs import single_run
from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import DataArguments, parse_arguments
from hf_transfer.runs.card import LOG_FILE, facts_of_source_only, measured_on, ranking_table, test_name, test_split
from hf_transfer.runs.data import load_data
from tests.runs.folders import QUICK, masked_lm, save_text_model

test_name.__test__ = test_split.__test__ = False
DIGITS = ["--model", "vit", "--dataset", "digits", "--test_rows", "20", *QUICK]


def card_of(run: str) -> ModelCard:
    return ModelCard.load(f"{run}/model/README.md")


@pytest.mark.parametrize(
    ("arguments", "name", "split"),
    [
        ({"test_rows": 5}, "a", "held out of the training data"),
        ({"test_rows": 5, "target_dataset": "b"}, "b", "held out of the target"),
        ({"test_dataset": "c", "target_dataset": "b"}, "c", "test"),
        ({"test_split": "validation", "target_dataset": "b"}, "a", "validation"),
    ],
)
def test_only_a_test_split_is_called_one(arguments, name, split):
    data_args = DataArguments("a", **arguments)
    assert (test_name(data_args), test_split(data_args)) == (name, split)


def test_what_was_measured_on_no_test_rows_says_so(here):
    data_args = DataArguments("digits")
    data = load_data(data_args)
    play = "offline-reinforcement-learning"
    assert measured_on("mean_return", play, data_args, data) == "episodes played"
    assert measured_on("information_maximization", "image-classification", data_args, data) == "training rows"
    held = DataArguments("digits", test_rows=20)
    assert measured_on("loss", play, held, load_data(held)) == "held out of the training data"


@pytest.mark.parametrize("labels_per_class", [None, 2])
def test_the_numbers_of_the_rows_held_out_are_kept(here, labels_per_class):
    whole = load_data(DataArguments("digits"), seed=3).train
    data = load_data(DataArguments("digits", test_rows=20, labels_per_class=labels_per_class), seed=3)
    assert len(set(data.held_out)) == 20
    assert whole.select(data.held_out)["label"][:] == data.test["label"][:]
    assert data.train.column_names == whole.column_names == data.test.column_names


def test_a_run_says_all_of_it(here):
    run_adaptation(parse_arguments([*DIGITS, "--output_dir", "out"]))
    card = card_of("out")
    assert {result.dataset_split for result in card.data.eval_results} == {"held out of the training data"}
    assert "import hf_transfer" not in card.text and 'from_pretrained("out/model")' in card.text
    assert "| digits | training | 60 |" in card.text and "| digits | test | 20 | fingerprint " in card.text
    assert "| trained_parameters |" in card.text and "| training_seconds |" in card.text
    held_out = json.loads(Path("out/model/held_out.json").read_text())
    assert held_out["what"] == "held out of the training data" and len(held_out["rows"]) == 20
    assert held_out["fingerprint"] in card.text
    assert json.loads(Path(f"out/model/{LOG_FILE}").read_text())["hyper_parameters"]["max_steps"] == 2


def test_a_pretrained_text_model_says_how_long_its_texts_are(here):
    save_text_model(here / "lm", masked_lm(), mask_token="[MASK]")
    task = ["--model", "lm", "--task", "fill-mask", "--dataset", "books.csv", "--max_length", "9", *QUICK]
    run_pretraining(parse_arguments([*task, "--output_dir", "out"]))
    card = card_of("out")
    assert "| max_length | `9` |" in card.text and "| longest_input_tokens | `9` |" in card.text
    assert "from transformers import AutoModelForMaskedLM" in card.text and "import hf_transfer" not in card.text


def test_the_ranking_that_chose_the_model_is_shown(tmp_path):
    scores = {"vit": 0.5, "three": 0.2}
    rows = tuple(
        RankingRow(name, value, layer=-1, layers={-1: Score(value, 0.1)}, parameters=10)
        for name, value in scores.items()
    )
    Ranking(rows).save(tmp_path)
    table = ranking_table(str(tmp_path))
    assert [row[0] for row in table.rows] == ["vit", "three"] and table.columns[1] == "logme"
    assert ranking_table(None) is None


def test_source_only_shows_its_own_losses(tmp_path):
    history = [{"loss": 1.0, "step": 1}, {"loss": 0.5, "step": 2}]
    folder = tmp_path / "source_only"
    folder.mkdir()
    facts = {"plots": [PlotFact(tmp_path / "losses.png", "of dann"), PlotFact(tmp_path / "domains.png", "")]}
    assert [Path(plot.path).name for plot in facts_of_source_only(folder, facts, tmp_path)["plots"]] == ["domains.png"]
    (folder / LOG_FILE).write_text(json.dumps({"log_history": history, "hyper_parameters": {"seed": 9}}))
    own = facts_of_source_only(folder, facts, tmp_path)
    assert [Path(plot.path).name for plot in own["plots"]] == ["source_only_losses.png", "domains.png"]
    assert Path(own["plots"][0].path).is_file() and own["hyper_parameters"] == {"seed": 9}


def test_a_failed_push_names_the_command_that_makes_up_for_it(here, hub, monkeypatch):
    def fail(*args, **kwargs):
        raise HubError("Pushing to 'lab/digits' failed: the Hub is in trouble.")

    monkeypatch.setattr(single_run, "push_folder", fail)
    push = ["--push_to_hub", "true", "--hub_model_id", "lab/digits", "--hub_private_repo", "true"]
    with pytest.raises(HubError, match=r"in trouble.* saved whole .*hf-transfer push out/model lab/digits --private"):
        run_adaptation(parse_arguments([*DIGITS, *push, "--output_dir", "out"]))
    assert card_of("out").data.eval_results
