import pandas
import pytest
from datasets import Dataset, DatasetDict

from hf_transfer.data.conversion import as_dataset, evaluation_rows
from hf_transfer.training.family_trainers import DomainAdaptationTrainer, TaskAdaptationTrainer
from tests import tiny
from tests.training.test_trainer import config

ROWS = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]


@pytest.fixture
def rows():
    return Dataset.from_list(ROWS)


def test_what_holds_rows_is_converted(rows):
    frame = pandas.DataFrame(ROWS, index=[7, 9]).astype({"text": "category"})
    for given in (rows, DatasetDict(train=rows, test=rows), DatasetDict(other=rows), frame, ROWS, rows.to_dict()):
        found = as_dataset(given, "train_dataset")
        assert found.column_names == ["text", "label"] and found.to_list() == ROWS
    assert as_dataset(rows, "train_dataset") is rows


def test_a_split_of_several_is_asked_for(rows):
    splits = DatasetDict(a=rows, b=rows)
    assert as_dataset(splits, "eval_dataset", ("validation", "b")) is splits["b"]
    with pytest.raises(ValueError, match=r"`eval_dataset` has the splits \['a', 'b'\]: give one, `dataset\['a'\]`"):
        as_dataset(splits, "eval_dataset")


def test_what_cannot_be_read_says_what_to_do(rows):
    for given, message in (
        (rows.to_iterable_dataset(), "an IterableDataset, .*streaming=True"),
        ([rows, rows], "a list of 2 datasets: join them by `datasets.concatenate_datasets`"),
        ("rows.csv", "should be a datasets.Dataset, got str"),
        ([], "got list"),
        (None, "got NoneType"),
    ):
        with pytest.raises(TypeError, match=message):
            as_dataset(given, "train_dataset")


class TestTrainers:
    def rows(self, labels):
        reader = tiny.tokenizer()
        texts = [text for text, _ in tiny.SENTENCES[: len(labels)]]
        columns = reader(texts, padding="max_length", max_length=20, truncation=True)
        return Dataset.from_dict({"input_ids": columns["input_ids"], "labels": labels})

    @pytest.mark.parametrize("kind", ["splits", "frame", "list"])
    def test_rows_of_every_kind_are_trained_on(self, tmp_path, kind):
        rows = self.rows([0, 1] * 8)
        given = {"splits": DatasetDict(train=rows, test=rows), "frame": rows.to_pandas(), "list": rows.to_list()}[kind]
        args = config(tmp_path, max_steps=1)
        trainer = TaskAdaptationTrainer(tiny.bert(2), args, train_dataset=given, eval_dataset=given)
        assert trainer.train_dataset["input_ids"][:] == rows["input_ids"][:]
        assert trainer.train().global_step == 1
        adaptation = DomainAdaptationTrainer(tiny.bert(2), args, train_dataset=given, target_dataset=given)
        assert len(adaptation.train_dataset) == 32

    def test_what_cannot_be_converted_is_refused_before_training(self, tmp_path):
        rows = self.rows([0, 1] * 8)
        given, message = [rows, rows], "list of 2 datasets"
        with pytest.raises(TypeError, match=message):
            TaskAdaptationTrainer(tiny.bert(2), config(tmp_path), train_dataset=given)
        with pytest.raises(TypeError, match=message):
            DomainAdaptationTrainer(tiny.bert(2), config(tmp_path), train_dataset=given, target_dataset=rows)
        with pytest.raises(TypeError, match=message):
            DomainAdaptationTrainer(tiny.bert(2), config(tmp_path), train_dataset=rows, target_dataset=given)

    def test_objectives_are_a_mapping(self, tmp_path):
        with pytest.raises(TypeError, match="`objectives` should map names to keywords"):
            TaskAdaptationTrainer(
                tiny.bert(2), config(tmp_path), train_dataset=self.rows([0, 1] * 8), objectives=["l2_sp"]
            )

    def test_true_and_false_are_trained_on(self, tmp_path):
        rows = self.rows([True, False] * 8)
        trainer = TaskAdaptationTrainer(tiny.bert(2), config(tmp_path, max_steps=1), train_dataset=rows)
        assert trainer.train().global_step == 1 and trainer.transfer_model.config.num_labels == 2

    def test_a_missing_label_is_named(self, tmp_path):
        with pytest.raises(ValueError, match="column `labels` of the training dataset is empty in row 1 "):
            TaskAdaptationTrainer(tiny.bert(2), config(tmp_path), train_dataset=self.rows([0, None, 1]))


def test_evaluation_rows_may_be_several(rows):
    assert evaluation_rows(None) is None
    assert evaluation_rows(DatasetDict(a=rows)) == {"a": rows}
    assert evaluation_rows({"a": ROWS, "b": rows})["b"] is rows
