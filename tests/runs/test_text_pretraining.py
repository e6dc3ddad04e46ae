"""Runs of text pre-training from the arguments to the saved folder, and what is refused before any training."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.single_run import make_pretraining
from tests.marks import slow
from tests.runs.folders import QUICK, causal_lm, save_text_model
from tests.runs.test_adapt import no_training

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
LAYERS = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 40}
KINDS = {
    "bert": {"model_type": "bert", **SMALL, "max_position_embeddings": 40},
    "flowformer": {"model_type": "flowformer", "modality": "text", "is_causal": True, **SMALL},
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40},
    "bloom": {"model_type": "bloom", "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "xlnet": {"model_type": "xlnet", "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 16},
    "t5": {"model_type": "t5", "d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 2, "num_heads": 2},
    "bart": {"model_type": "bart", **LAYERS, **HEADS},
}
TOKENIZER = "{vocab_size: 400, mask_token: true, sentinels: 20}"
CASES = {
    "masked": ("fill-mask", "bert", "{masked_language: {probability: 0.3, whole_words: true}}"),
    "causal": ("text-generation", "flowformer", "null"),
    "packed": ("text-generation", "flowformer", "{packed_language: {}}"),
    "permuted": ("text-generation", "xlnet", "{permuted_language: {}}"),
    "spans": ("text2text-generation", "t5", "{span_corruption: {noise_density: 0.3}}"),
    "spans of a decoder": ("text-generation", "gpt2", "{span_corruption: {}}"),
    "denoising": ("text2text-generation", "bart", "{denoising: {random_share: 0.1}}"),
}

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "pretraining").glob("bible_*.yaml"))
PAPERS = {"masked": "1810.04805", "packed": "2107.02027", "permuted": "1906.08237", "spans": "1910.10683"}
PAPERS |= {"spans of a decoder": "1910.10683", "denoising": "1910.13461"}


def arguments(task: str, kind: str, pretraining: str, *more: str) -> list[str]:
    asked = ["--task", task, "--pretraining", pretraining, "--architecture", json.dumps(KINDS[kind])]
    data = ["--dataset", "books.csv", "--test_rows", "4", "--tokenizer", TOKENIZER, "--output_dir", "out"]
    return [*asked, *data, *QUICK, *more]


@pytest.mark.parametrize(
    ("name", "length"),
    [
        *(
            (name, "--max_length") if number % 2 == 0 else slow(name, "--max_length")
            for number, name in enumerate(CASES)
        ),
        *(slow(name, "--block_size") for name in CASES if name != "packed"),
    ],
)
def test_a_run_saves_a_model_that_reads_back(here, name, length):
    task, kind, pretraining = CASES[name]
    more = [length, "40", "--learning_rate", "0.01"]
    metrics = run_pretraining(parse_arguments(arguments(task, kind, pretraining, *more)))
    assert 1 < metrics["loss"] < 8
    loader = {"fill-mask": AutoModelForMaskedLM, "text2text-generation": AutoModelForSeq2SeqLM}
    model, report = loader.get(task, AutoModelForCausalLM).from_pretrained("out/model", output_loading_info=True)
    assert not report["missing_keys"] and model.config.vocab_size == 400
    assert len(AutoTokenizer.from_pretrained("out/model")) == 400
    card = Path("out/model/README.md").read_text()
    assert PAPERS.get(name, "") in card
    assert f"pipeline_tag: {task}" in card


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs(here, recipe):
    """On a few sentences in place of the Bible."""
    small = ["--dataset", "books.csv", "--test_split", "null", "--test_rows", "4", "--block_size", "20"]
    small = small[:-2] if "packed" in recipe.stem else small
    metrics = run_pretraining(parse_arguments([str(recipe), *small, *QUICK, "--output_dir", "out"]))
    assert 4 < metrics["loss"] < 10


@pytest.mark.parametrize("peft", [[], ["--peft", "{peft_type: LORA, target_modules: [c_attn]}"]])
def test_a_perplexity_is_measured_again_in_blocks_of_the_same_length(here, peft):
    save_text_model(here / "start", causal_lm(), eos_token="[SEP]")
    data = ["--dataset", "books.csv", "--test_dataset", "books.csv", "--block_size", "7", "--output_dir", "out"]
    told = ["--model", "start", "--task", "text-generation", *data, *QUICK, *peft]
    trained = run_pretraining(parse_arguments(told))
    again = run_evaluation("out/model", "books.csv", task="text-generation")
    assert again["perplexity"] == pytest.approx(trained["perplexity"], rel=1e-5)
    other = run_evaluation("out/model", "books.csv", task="text-generation", block_size=20)
    assert other["perplexity"] != pytest.approx(trained["perplexity"], rel=1e-4)


@pytest.mark.parametrize("name", ["spans", "spans of a decoder", "denoising"])
def test_block_size_is_the_length_that_the_model_reads(here, name):
    """GPT-2 and BART have positions for 40 tokens: one more would fail in the embedding."""
    trainer, data = make_pretraining(parse_arguments(arguments(*CASES[name], "--block_size", "40")))
    raw = {len(tokens) for tokens in data.train["input_ids"]}
    assert len(raw) == 1 and raw != {40}
    longest = 0
    for epoch_batch in trainer.get_train_dataloader():
        longest = max(longest, epoch_batch["input_ids"].shape[1], epoch_batch["labels"].shape[1])
        with torch.no_grad():
            trainer.adapted_model(**epoch_batch)
    assert longest == 40


@pytest.mark.parametrize(
    ("case", "more", "message"),
    [
        ("masked", ["--tokenizer", "{vocab_size: 400}"], "needs a mask token, and this tokenizer has none"),
        ("denoising", ["--tokenizer", "{vocab_size: 400}"], "needs a `mask_token`, and this tokenizer has none"),
        (
            "spans",
            ["--tokenizer", "{vocab_size: 400, mask_token: true}"],
            "needs sentinels, and this tokenizer has no",
        ),
        (
            "spans",
            ["--tokenizer", "{vocab_size: 400, sentinels: 1}", "--block_size", "60"],
            "the tokenizer 1 sentinels",
        ),
        ("spans", ["--tokenizer", "{vocab_size: 400, sentinel: 1}"], "may say .*'sentinels'"),
        ("packed", ["--architecture", json.dumps(KINDS["bloom"])], r"does not take|does not keep packed documents"),
        ("permuted", ["--architecture", json.dumps(KINDS["gpt2"])], r"gives \['perm_mask', 'target_mapping'\]"),
        ("causal", ["--pretraining", "{denoising: {}}"], "should name one of .* for text-generation"),
        ("masked", ["--block_size", "50"], "`block_size=50` is more than the 40 tokens"),
        ("permuted", ["--pretraining", "null"], "XLNetLMHeadModel does not predict the next token of a row, which it"),
        ("packed", ["--block_size", "20"], "packs whole texts: leave `block_size` out"),
        ("masked", ["--dataset", "empty.csv"], "has fewer than 1 tokens of text in row"),
        ("spans", ["--dataset", "empty.csv"], "has fewer than 1 tokens of text in row"),
        ("permuted", ["--dataset", "empty.csv"], "has fewer than 2 tokens of text in row"),
    ],
)
def test_bad_input_is_refused_before_any_training(here, monkeypatch, case, more, message):
    no_training(monkeypatch)
    texts = ["Call me Ishmael.", "", "What do you see?", " ", "Down, down, down.", "Miss Taylor married."]
    Dataset.from_dict({"text": texts}).to_json("empty.json")
    more = [word.replace("empty.csv", "empty.json") for word in more]
    with pytest.raises(ValueError, match=message):
        run_pretraining(parse_arguments(arguments(*CASES[case], *more)))


def test_perplexity_of_a_permuted_model_is_refused(here):
    run_pretraining(parse_arguments(arguments(*CASES["permuted"], "--max_length", "40")))
    with pytest.raises(ValueError, match="whose loss on held-out rows is its measure"):
        run_evaluation("out/model", "books.csv", block_size=20)


def test_pretraining_is_read_by_tasks_on_text_alone(here, monkeypatch):
    no_training(monkeypatch)
    command = ["--model", "bert", "--dataset", "books.csv", "--task", "text-classification", *QUICK]
    command += ["--pretraining", "{denoising: {}}"]
    with pytest.raises(ValueError, match="`pretraining` = .* would be ignored: it is for pre-training on text"):
        run_pretraining(parse_arguments([*command, "--output_dir", "out"]))


@pytest.mark.parametrize("name", ["spans", slow("denoising")])
def test_an_encoder_decoder_is_probed_and_then_classifies(here, name):
    """A new tokenizer ends no text, and the head reads the end token alone."""
    task, kind, pretraining = CASES[name]
    probed = ["--transfer_probes", "{books: books.csv}", "--eval_strategy", "steps", "--max_length", "40"]
    assert 0 <= run_pretraining(parse_arguments(arguments(task, kind, pretraining, *probed)))["books_knn"] <= 1
    words = ["--model", "out/model", "--dataset", "books.csv", "--test_rows", "4", "--max_length", "40"]
    adapted = run_adaptation(parse_arguments([*words, *QUICK, "--output_dir", "next"]))
    tokenizer = AutoTokenizer.from_pretrained(adapted.folder)
    assert 0 <= adapted["accuracy"] <= 1
    assert tokenizer("Down, down, down.", truncation=True, max_length=3)["input_ids"][-1] == tokenizer.eos_token_id
