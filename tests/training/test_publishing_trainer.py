"""What a trainer saves and pushes from Python: true cards, whole models, nothing that only resuming needs."""

import errno
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModel, LoraConfig, get_peft_model
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_transfer import DomainAdaptationTrainer, TaskAdaptationTrainer, TransferConfig
from hf_transfer.hub import adapter_class_names, push_folder
from hf_transfer.training.publishing_trainer import is_by_hand
from tests import tiny

BOOKS = {0: "moby dick", 1: "emma", 2: "alice"}


def config(folder: Path, **settings) -> TransferConfig:
    keywords = {"max_steps": 1, "report_to": [], "use_cpu": True, "per_device_train_batch_size": 8}
    return TransferConfig(str(folder), **{**keywords, **settings})


@pytest.fixture
def digit_trainer(tmp_path: Path, digits) -> TaskAdaptationTrainer:
    settings = config(tmp_path / "out", objectives={"bss": {"weight": 0.5}}, save_strategy="no")
    return TaskAdaptationTrainer(tiny.vit(), settings, train_dataset=digits, eval_dataset=digits.select(range(8)))


def lora(tmp_path: Path, **keywords):
    tiny.bert().save_pretrained(tmp_path / "base")
    numbers = {name: place for place, name in BOOKS.items()}
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", id2label=BOOKS, label2id=numbers)
    return get_peft_model(base, LoraConfig(target_modules=["query"], modules_to_save=["classifier"], **keywords))


def code_of(card: str) -> str:
    return card.split("```python\n")[1].split("```")[0]


def test_a_saved_model_has_a_true_card(digit_trainer, tmp_path):
    digit_trainer.train()
    measured = digit_trainer.evaluate()
    digit_trainer.save_model(tmp_path / "saved")
    card = ModelCard.load(tmp_path / "saved" / "README.md")
    assert (card.data.pipeline_tag, card.data.library_name) == ("image-classification", "transformers")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.dataset_split) == ("loss", "evaluation")
    assert result.metric_value == pytest.approx(measured["eval_loss"], abs=1e-6)
    assert "import hf_transfer" not in code_of(card.text) and "| BSS |" in card.text and "`weight=0.5`" in card.text
    assert "| training | 64 | fingerprint " in card.text and "| evaluation | 8 | fingerprint " in card.text
    assert "| training_seconds |" in card.text and "Not trained" not in card.text
    space: dict = {}
    exec(code_of(card.text), space)
    assert isinstance(space["model"], type(digit_trainer.adapted_model))


def test_an_evaluation_of_earlier_weights_is_not_on_the_card(digit_trainer, tmp_path):
    digit_trainer.evaluate()
    digit_trainer.train()
    digit_trainer.save_model(tmp_path / "saved")
    assert not ModelCard.load(tmp_path / "saved" / "README.md").data.eval_results


def test_an_untrained_model_says_so(digit_trainer, tmp_path):
    digit_trainer.save_model(tmp_path / "saved")
    assert "Not trained yet." in (tmp_path / "saved" / "README.md").read_text()


def test_flowformer_and_what_it_is_pretrained_for(tmp_path, digits):
    settings = config(tmp_path / "out", save_strategy="no")
    TaskAdaptationTrainer(tiny.flowformer(), settings, train_dataset=digits).save_model(tmp_path / "saved")
    text = (tmp_path / "saved" / "README.md").read_text()
    assert "import hf_transfer  # registers the architecture flowformer: without it loading fails" in text


def test_two_domains_are_two_datasets(tmp_path, digit_domains):
    settings = config(tmp_path / "out", save_strategy="no", objectives={"dann": {}})
    trainer = DomainAdaptationTrainer(tiny.vit(), settings, train_dataset=digit_domains)
    trainer.save_model(tmp_path / "saved")
    text = (tmp_path / "saved" / "README.md").read_text()
    assert "| source | 32 |" in text and "| target, unlabelled | 32 |" in text


def test_an_adapter_keeps_its_class_names_and_says_its_sizes(tmp_path, sentences, monkeypatch):
    trainer = TaskAdaptationTrainer(lora(tmp_path), config(tmp_path / "out"), train_dataset=sentences)
    trainer.train()
    for _ in range(2):  # PEFT rewrites the metadata of a card that it finds
        trainer.save_model(tmp_path / "saved")
        assert not is_by_hand(tmp_path / "saved")
    assert adapter_class_names(tmp_path / "saved") == list(BOOKS.values())
    assert adapter_class_names(tmp_path / "out" / "checkpoint-1") == list(BOOKS.values())
    text = (tmp_path / "saved" / "README.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| Lora "))
    for setting in ("`r=8`", "`lora_alpha=8`", "`target_modules=query`", "`modules_to_save=classifier`"):
        assert setting in row
    assert "import hf_transfer" not in code_of(text)
    space: dict = {}
    exec(code_of(text), space)
    assert space["model"].config.id2label == BOOKS
    kept = space["model"].state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in trainer.adapted_model.state_dict().items())


def test_a_card_by_hand_is_kept(digit_trainer, tmp_path):
    (tmp_path / "saved").mkdir()
    text = "---\nlicense: mit\n---\n# Mine\n"
    (tmp_path / "saved" / "README.md").write_text(text)
    digit_trainer.save_model(tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").read_text() == text


class TestPushing:
    def test_from_python(self, hub, digit_trainer, digits):
        digit_trainer.args.hub_model_id = "lab/digits"
        digit_trainer.train()
        commit = digit_trainer.push_to_hub(commit_message="mine", license="mit")
        assert commit.commit_url.startswith(f"{hub.endpoint}/lab/digits/commit/")
        files = hub.files("lab/digits")
        assert files.keys() & {"config.json", "model.safetensors", "README.md"} == {
            "config.json",
            "model.safetensors",
            "README.md",
        }
        assert not files.keys() & {"training_args.bin", "objectives.safetensors"}
        card = ModelCard(files["README.md"].decode())
        assert card.data.license == "mit" and 'from_pretrained("lab/digits")' in card.text and "BSS" in card.text
        loaded = AutoModelForImageClassification.from_pretrained("lab/digits")
        assert torch.equal(loaded.classifier.weight, digit_trainer.adapted_model.classifier.weight)

    def test_every_save_of_a_training(self, hub, tmp_path, digits):
        settings = config(tmp_path / "out", push_to_hub=True, hub_model_id="lab/digits", save_steps=1)
        TaskAdaptationTrainer(tiny.vit(), settings, train_dataset=digits).train()
        files = hub.files("lab/digits")
        assert {"config.json", "model.safetensors", "README.md"} <= files.keys()
        assert not files.keys() & {"training_args.bin", "optimizer.pt", "resume.json", "trainer_state.json"}
        assert 'from_pretrained("lab/digits")' in files["README.md"].decode()

    def test_an_adapter_of_a_local_base_is_refused(self, hub, tmp_path, sentences):
        settings = config(tmp_path / "out", hub_model_id="lab/books")
        trainer = TaskAdaptationTrainer(lora(tmp_path), settings, train_dataset=sentences)
        with pytest.raises(ValueError, match="this model is an adapter of the folder `.*base`"):
            trainer.push_to_hub()
        settings = config(tmp_path / "out", hub_model_id="lab/books", push_to_hub=True)
        with pytest.raises(ValueError, match="this model is an adapter of the folder"):
            TaskAdaptationTrainer(lora(tmp_path), settings, train_dataset=sentences)
        assert not hub.files("lab/books") if "lab/books" in hub.store.repos else True

    def test_an_adapter_of_a_base_on_the_hub(self, hub, tmp_path, sentences):
        model = lora(tmp_path)
        base = TaskAdaptationTrainer(tiny.bert(), config(tmp_path / "b"), train_dataset=sentences)
        base.save_model(tmp_path / "b")
        push_folder(tmp_path / "b", "lab/base")
        model.active_peft_config.base_model_name_or_path = "lab/base"
        settings = config(tmp_path / "out", hub_model_id="lab/books")
        TaskAdaptationTrainer(model, settings, train_dataset=sentences).push_to_hub()
        loaded = AutoPeftModel.from_pretrained("lab/books", num_labels=3, ignore_mismatched_sizes=True)
        assert loaded.active_peft_config.base_model_name_or_path == "lab/base"


@pytest.mark.parametrize("part", ["_save_rng_state", "_save_optimizer_and_scheduler"])
def test_a_full_disk_leaves_whole_checkpoints_only(tmp_path, digits, monkeypatch, part):
    trainer = TaskAdaptationTrainer(
        tiny.vit(), config(tmp_path / "out", save_steps=1, max_steps=3), train_dataset=digits
    )
    ordinary = getattr(trainer, part)

    def full(folder):
        if folder.endswith("checkpoint-2"):
            raise OSError(errno.ENOSPC, "No space left on device")
        ordinary(folder)

    monkeypatch.setattr(trainer, part, full)
    with pytest.raises(OSError, match=r"the disk is full: `.*checkpoint-2`.*--resume") as caught:
        trainer.train()
    assert caught.value.errno == errno.ENOSPC
    assert [item.name for item in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-1"]
    monkeypatch.undo()
    assert trainer.train(resume_from_checkpoint=True).global_step == 3
