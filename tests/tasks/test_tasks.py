"""Every task of the registry: its model class, what it reads, and the batches it makes."""

import pytest
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling

from hf_transfer.data import (
    DenoisingCollator,
    MaskedLanguageCollator,
    PackingCollator,
    PermutationCollator,
    SpanCorruptionCollator,
)
from hf_transfer.runs.models import new_config
from hf_transfer.tasks import MAIN_TASKS, TASKS, Task, task_named, tasks_with_labels
from hf_transfer.tasks.arguments import DataArguments
from tests.data.text_tokenizers import byte_level
from tests.runs.folders import causal_lm


def test_a_task_is_there_once_under_its_own_name():
    assert all(isinstance(task, Task) and task.name == name for name, task in TASKS.items())
    assert {kind: task.name for kind, task in MAIN_TASKS.items()} == {
        "image": "image-classification",
        "text": "text-classification",
        "words": "token-classification",
        "audio": "audio-classification",
        "time_series": "time-series-classification",
        "trajectory": "offline-reinforcement-learning",
    }
    assert tasks_with_labels() == [
        "image-classification",
        "text-classification",
        "token-classification",
        "question-answering",
        "image-segmentation",
        "object-detection",
        "keypoint-detection",
        "audio-classification",
        "time-series-classification",
        "time-series-forecasting",
        "prompted-image-classification",
    ]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_its_model_class_loads_from_a_folder(name):
    assert callable(task_named(name).model_class().from_pretrained)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown task `segmentation`, accepted: .*'fill-mask'"):
        task_named("segmentation")


LANGUAGE = ["fill-mask", "text-generation", "text2text-generation"]


def test_only_pretraining_on_text_reads_blocks_and_only_trajectories_their_settings():
    readers = {
        name: [task.name for task in TASKS.values() if name in task.own_arguments]
        for name in ("block_size", "pretraining", "trajectories", "tokenizer", "prompts")
    }
    assert readers["block_size"] == LANGUAGE
    assert readers["pretraining"] == [*LANGUAGE, "masked-time-series-modeling"]
    assert readers["trajectories"] == ["offline-reinforcement-learning", "trajectory-modeling"]
    assert readers["tokenizer"] == [
        "text-classification",
        "token-classification",
        "question-answering",
        *LANGUAGE,
        "zero-shot-image-classification",
    ]
    assert readers["prompts"] == ["zero-shot-image-classification", "prompted-image-classification"]


@pytest.mark.parametrize(
    ("task", "pretraining", "made"),
    [
        ("fill-mask", None, MaskedLanguageCollator),
        ("fill-mask", {"masked_language": {"whole_words": True}}, MaskedLanguageCollator),
        ("text-generation", None, None),
        ("text-generation", {"packed_language": None}, PackingCollator),
        ("text-generation", {"permuted_language": {}}, PermutationCollator),
        ("text-generation", {"span_corruption": {}}, SpanCorruptionCollator),
        ("text2text-generation", None, SpanCorruptionCollator),
        ("text2text-generation", {"span_corruption": {"sentinels": ["<extra_id_1>"]}}, SpanCorruptionCollator),
        ("text2text-generation", {"denoising": {"mask_share": 0.2}}, DenoisingCollator),
        ("image-classification", None, None),
    ],
)
def test_a_task_makes_the_collator_that_the_arguments_name(task, pretraining, made):
    collator = TASKS[task].pretraining_collator(byte_level(), DataArguments(dataset="x", pretraining=pretraining))
    assert type(collator) is (made or type(None))
    if made is SpanCorruptionCollator:
        assert collator.decoder_only == (task == "text-generation")
    (keywords,) = (pretraining or {"": None}).values()
    for name, value in (keywords or {}).items():
        assert getattr(collator, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("task", "pretraining", "message"),
    [
        (
            "fill-mask",
            {"denoising": {}},
            r"should name one of \['masked_language'\] for fill-mask, got \['denoising'\]",
        ),
        ("text-generation", {}, "should name one of .* got ...$"),
        ("text2text-generation", {"denoising": {}, "span_corruption": {}}, "should name one of"),
        ("fill-mask", {"masked_language": 0.3}, "the keywords of `masked_language` should be a mapping, got 0.3"),
        (
            "fill-mask",
            {"masked_language": {"rate": 0.3}},
            r"`masked_language` has no \['rate'\], accepted: .*probability",
        ),
        ("fill-mask", {"masked_language": {"seed": 3}}, r"`masked_language` has no \['seed'\]"),
        ("text-generation", {"span_corruption": {"decoder_only": False}}, r"has no \['decoder_only'\]"),
        ("text2text-generation", {"span_corruption": {"noise_density": 2}}, "`noise_density` should be in"),
    ],
)
def test_wrong_pretraining_is_refused(task, pretraining, message):
    with pytest.raises(ValueError, match=message):
        TASKS[task].pretraining_collator(byte_level(), DataArguments(dataset="x", pretraining=pretraining))


def test_pretraining_on_text_needs_a_tokenizer():
    with pytest.raises(ValueError, match="fill-mask needs the tokenizer that made the rows"):
        TASKS["fill-mask"].pretraining_collator(None, DataArguments(dataset="x"))


@pytest.mark.parametrize(("kind", "start"), [("t5", 0), ("bart", 1), ("mt5", 0)])
def test_the_decoder_starts_as_those_of_its_kind_do(kind, start):
    sizes = TASKS["text2text-generation"].sizes({"model_type": kind}, DataArguments(dataset="x"), [], byte_level())
    assert sizes["decoder_start_token_id"] == start
    assert new_config({"model_type": kind, **sizes}).decoder_start_token_id == start
    assert getattr(new_config({"model_type": kind, **sizes}), "forced_eos_token_id", None) in (None, 1)


def test_sizes_of_a_new_model_follow_from_the_longest_series_of_all_rows():
    short, long = (Dataset.from_dict({"past_values": [[[0.0, 1.0]] * steps]}) for steps in (3, 5))
    task, data = TASKS["time-series-classification"], DataArguments(dataset="japanese_vowels")
    architecture = {"model_type": "flowformer", "pooling": "flatten"}
    assert task.sizes(architecture, data, [short, long], None) == {
        "num_input_channels": 2,
        "max_position_embeddings": 5,
    }
    assert task.sizes({"model_type": "flowformer"}, data, [short, long], None) == {"num_input_channels": 2}


def test_perplexity_is_the_exponential_of_the_loss():
    further = TASKS["text-generation"].further_metrics(causal_lm(), None, DataArguments(dataset="x"), 0)
    assert further({"loss": 2.0})["perplexity"] == pytest.approx(7.38905609893065)
    assert further({}) == {}


def test_blocks_have_their_labels_already_and_texts_get_them(tmp_path):
    from tests.ranking.conftest import make_tokenizer

    tokenizer, task = make_tokenizer(), TASKS["text-generation"]
    blocks = Dataset.from_dict({"input_ids": [[2, 3]], "labels": [[2, 3]]})
    assert task.collator(tokenizer, blocks)([blocks[0]])["labels"].tolist() == [[2, 3]]
    assert isinstance(task.collator(tokenizer, blocks.remove_columns("labels")), DataCollatorForLanguageModeling)
