"""The four pipelines of transformers run from a saved folder, and no head is called unsupported."""

import logging

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, ViTImageProcessorPil, pipeline
from transformers.utils import logging as transformers_logging

import hf_transfer  # noqa: F401
from hf_transfer.models.flowformer import (
    FlowformerForCausalLM,
    FlowformerForImageClassification,
    FlowformerForMaskedLM,
    FlowformerForSequenceClassification,
    FlowformerForTokenClassification,
    FlowformerModel,
)
from tests.models.flowformer.tiny import tiny_config

WORDS = ["[PAD]", "[MASK]", "[UNK]", "flow", "comes", "in", "and", "goes", "out", "what"]


def text_folder(head, folder):
    vocabulary = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    vocabulary.pre_tokenizer = Whitespace()
    special = {"pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"}
    # bracketed words would be split before they are looked up, so they are given as special tokens
    PreTrainedTokenizerFast(tokenizer_object=vocabulary, **special).save_pretrained(folder)
    torch.manual_seed(0)
    head(tiny_config(vocab_size=len(WORDS))).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def no_complaint(caplog):
    transformers_logging.enable_propagation()
    yield
    transformers_logging.disable_propagation()
    assert [r.getMessage()[:90] for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_text_classification(tmp_path):
    folder = text_folder(FlowformerForSequenceClassification, tmp_path)
    answers = pipeline("text-classification", model=folder)(["flow comes in", "out"], padding=True)
    assert [set(answer) for answer in answers] == [{"label", "score"}] * 2
    alone = pipeline("text-classification", model=folder)("out")[0]
    assert alone["score"] == pytest.approx(answers[1]["score"], abs=1e-5)


def test_fill_mask(tmp_path):
    answers = pipeline("fill-mask", model=text_folder(FlowformerForMaskedLM, tmp_path))("flow [MASK] in", top_k=3)
    assert len(answers) == 3 and all(answer["token_str"] in WORDS for answer in answers)


def test_text_generation(tmp_path):
    generator = pipeline("text-generation", model=text_folder(FlowformerForCausalLM, tmp_path))
    texts = ["flow comes in", "out"]
    together = generator(texts, max_new_tokens=4, min_new_tokens=4, do_sample=False, batch_size=2)
    alone = [generator(text, max_new_tokens=4, min_new_tokens=4, do_sample=False) for text in texts]
    assert together == alone


def test_token_classification(tmp_path):
    tagger = pipeline("token-classification", model=text_folder(FlowformerForTokenClassification, tmp_path))
    assert [answer["word"] for answer in tagger("flow in")] == ["flow", "in"]


def test_feature_extraction(tmp_path):
    folder = text_folder(FlowformerForMaskedLM, tmp_path)
    features = pipeline("feature-extraction", model=FlowformerModel.from_pretrained(folder), tokenizer=folder)("in")
    assert torch.tensor(features).shape == (1, 1, 16)


def test_image_classification(tmp_path):
    torch.manual_seed(0)
    FlowformerForImageClassification(tiny_config("image", num_channels=3)).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    answers = pipeline("image-classification", model=str(tmp_path))(Image.new("RGB", (20, 16), "red"), top_k=2)
    assert len(answers) == 2 and {"label", "score"} == set(answers[0])
