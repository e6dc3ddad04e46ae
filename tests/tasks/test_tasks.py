"""Every task of the registry: its model class, what it reads, and the batches it makes."""

import pytest
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling

from hf_transfer.tasks import MAIN_TASKS, TASKS, Task, task_named, tasks_with_labels
from hf_transfer.tasks.arguments import DataArguments


def test_a_task_is_there_once_under_its_own_name():
    assert all(isinstance(task, Task) and task.name == name for name, task in TASKS.items())
    assert {kind: task.name for kind, task in MAIN_TASKS.items()} == {
        "image": "image-classification",
        "text": "text-classification",
        "time_series": "time-series-classification",
        "trajectory": "offline-reinforcement-learning",
    }
    assert tasks_with_labels() == ["image-classification", "text-classification", "time-series-classification"]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_its_model_class_loads_from_a_folder(name):
    assert callable(task_named(name).model_class().from_pretrained)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown task `segmentation`, accepted: .*'fill-mask'"):
        task_named("segmentation")


def test_only_text_generation_reads_blocks_and_only_trajectories_their_settings():
    readers = {
        name: [task.name for task in TASKS.values() if name in task.own_arguments]
        for name in ("block_size", "trajectories", "tokenizer", "prompts")
    }
    assert readers["block_size"] == ["text-generation"]
    assert readers["trajectories"] == ["offline-reinforcement-learning"]
    texts = ["text-classification", "fill-mask", "text-generation", "zero-shot-image-classification"]
    assert readers["tokenizer"] == texts
    assert readers["prompts"] == ["zero-shot-image-classification"]


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
    further = TASKS["text-generation"].further_metrics(None, None, DataArguments(dataset="x"), 0)
    assert further({"loss": 2.0})["perplexity"] == pytest.approx(7.38905609893065)
    assert further({}) == {}


def test_blocks_have_their_labels_already_and_texts_get_them(tmp_path):
    from tests.ranking.conftest import make_tokenizer

    tokenizer, task = make_tokenizer(), TASKS["text-generation"]
    blocks = Dataset.from_dict({"input_ids": [[2, 3]], "labels": [[2, 3]]})
    assert task.collator(tokenizer, blocks)([blocks[0]])["labels"].tolist() == [[2, 3]]
    assert isinstance(task.collator(tokenizer, blocks.remove_columns("labels")), DataCollatorForLanguageModeling)
