"""Training on image-text pairs: it resumes exactly, composes with LoRA, and evaluates the embeddings of both."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, ResNetConfig, ResNetModel, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from hf_transfer.data.collators import PairCollator
from hf_transfer.data.prepare import prepare
from hf_transfer.evaluation.image_text import PairMetrics
from hf_transfer.training.pairs_trainer import PairsTrainer
from hf_transfer.training.trainer import TransferConfig
from tests.pretraining import pairs


@pytest.fixture(scope="module")
def rows():
    return prepare(pairs.captioned(0, 24, labelled=True), pairs.dual_encoder().config, pairs.processor())


def make(folder, rows, objective="clip", model=None, **changes) -> PairsTrainer:
    model = pairs.dual_encoder() if model is None else model
    config = {
        "max_steps": 3,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        "learning_rate": 1e-2,
        **changes,
    }
    objectives = {objective: {}} if objective else {}
    args = TransferConfig(str(folder), objectives=objectives, report_to=[], disable_tqdm=True, use_cpu=True, **config)
    collator = PairCollator(pairs.tokenizer())
    return PairsTrainer(model, args, train_dataset=rows, data_collator=collator, eval_dataset=rows)


@pytest.mark.parametrize("objective", ["clip", "siglip"])
def test_it_trains_resumes_exactly_and_saves_a_model(tmp_path, rows, objective):
    straight = make(tmp_path, rows, objective, save_strategy="steps", save_steps=2, logging_steps=1)
    straight.train()
    losses = [log["loss"] for log in straight.state.log_history if "loss" in log]
    assert len(losses) == 3 and all(map(math.isfinite, losses))
    resumed = make(tmp_path, rows, objective)
    with torch.no_grad():
        for parameter in resumed.transfer_model.parameters():
            parameter.add_(1.0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    state, start = resumed.transfer_model.state_dict(), pairs.dual_encoder().state_dict()
    for key, value in straight.transfer_model.state_dict().items():
        assert torch.equal(value, state[key]), f"{key} differs after resuming"
    assert not torch.equal(state["model.logit_scale"], start["logit_scale"])
    loaded = AutoModel.from_pretrained(tmp_path / "checkpoint-3").eval()
    batch = pairs.batch_of()
    expected = straight.adapted_model.eval()(**batch).logits_per_image
    assert type(loaded) is VisionTextDualEncoderModel and torch.equal(loaded(**batch).logits_per_image, expected)


def test_pairs_are_learnt(tmp_path, rows):
    """24 pictures of ten digits, whose captions are found, and whose classes are told by other prompts."""
    settings = {"max_steps": 75, "per_device_train_batch_size": 24, "learning_rate": 1e-3}
    trainer = make(tmp_path, rows, model=pairs.clip(), **settings)
    names, prompts = tuple(pairs.NAMES), ("this is {}",)
    trainer.compute_metrics = PairMetrics(trainer.adapted_model, pairs.tokenizer(), names, prompts)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_text_to_image_recall_1"] < 0.25 < 0.7 < after["eval_text_to_image_recall_1"]
    assert before["eval_zero_shot_accuracy"] < 0.3 < 0.5 < after["eval_zero_shot_accuracy"]
    assert "eval_loss" not in after


def test_predictions_are_the_embeddings_of_every_row(tmp_path, rows):
    trainer = make(tmp_path, rows, per_device_eval_batch_size=5)
    images, texts = trainer.predict(rows).predictions
    whole = PairCollator(pairs.tokenizer())([rows[place] for place in range(24)])
    whole.pop("labels")
    expected = trainer.adapted_model.eval()(**whole)
    torch.testing.assert_close(torch.tensor(images), expected.image_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(texts), expected.text_embeds, rtol=1e-4, atol=1e-5)
    assert not trainer.transfer_model.returns_features


def test_rows_without_classes_are_evaluated_too(tmp_path, rows):
    trainer = make(tmp_path, rows.remove_columns("labels"))
    trainer.compute_metrics = PairMetrics(trainer.adapted_model, pairs.tokenizer(), tuple(pairs.NAMES))
    assert {name for name in trainer.evaluate() if "recall" in name or "zero" in name} == {
        *(f"eval_{a}_recall_{k}" for a in ("image_to_text", "text_to_image") for k in (1, 5)),
        *(f"eval_recall_{k}_by_chance" for k in (1, 5)),
    }


def test_it_composes_with_lora(tmp_path, rows):
    config = LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["visual_projection"])
    trainer = make(tmp_path, rows, model=get_peft_model(pairs.dual_encoder(), config))
    start = {key: value.clone() for key, value in trainer.adapted_model.named_parameters()}
    trainer.train()
    moved = {key for key, value in trainer.adapted_model.named_parameters() if not torch.equal(value, start[key])}
    assert any("lora_B" in key for key in moved)
    assert all("lora" in key or "modules_to_save" in key for key in moved)


def test_pictures_are_augmented_and_captions_are_not(tmp_path, rows):
    trainer = make(tmp_path, rows, augmentation={})
    first, plain = next(iter(trainer.get_train_dataloader())), make(tmp_path, rows)
    again = next(iter(plain.get_train_dataloader()))
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert not torch.equal(first["pixel_values"], again["pixel_values"])


def test_the_scale_does_not_decay(tmp_path, rows):
    trainer = make(tmp_path, rows, "siglip", weight_decay=0.5)
    trainer.create_optimizer()
    names = {id(value): name for name, value in trainer.model.named_parameters()}
    decayed = {
        names[id(value)]
        for group in trainer.optimizer.param_groups
        if group["weight_decay"]
        for value in group["params"]
    }
    assert "model.visual_projection.weight" in decayed
    assert not any("logit" in name for name in decayed) and any("logit" in name for name in names.values())


def test_an_objective_has_to_say_how(tmp_path, rows):
    with pytest.raises(ValueError, match="name `clip` or `siglip` in `objectives`"):
        make(tmp_path, rows, objective=None)


def test_towers_that_give_no_pooled_output_are_refused_before_training(tmp_path, rows):
    vision = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    vision.hidden_size = 8  # its pooled output is a map
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, pairs.dual_encoder().config.text_config)
    model = VisionTextDualEncoderModel(config, ResNetModel(vision), pairs.dual_encoder().text_model)
    with pytest.raises(ValueError, match="a VisionTextDualEncoderModel cannot embed these rows .*pooler_output"):
        make(tmp_path, rows, model=model)
