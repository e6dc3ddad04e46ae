"""PretrainingTrainer: masked words and images."""

import numpy as np
import pytest
import torch
from transformers import (
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    GPT2LMHeadModel,
    set_seed,
)

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.training.family_trainers import (
    PretrainingTrainer,
)
from tests import tiny
from tests.ranking.conftest import make_tokenizer
from tests.training.test_trainer import assert_same, config, first_gradients, state_of


@pytest.fixture
def masked(sentences):
    """Every third real word is to be predicted: rows have between 1 and 6 labels."""
    labels = [
        [token if token and place % 3 == 0 else IGNORED_LABEL for place, token in enumerate(row)]
        for row in sentences.with_format(None)["input_ids"]
    ]
    return tiny.with_column(sentences, "labels", labels)


def whole_batch_gradient(model, rows, count) -> dict[str, torch.Tensor]:
    model(**tiny.batch_of(rows, count)).loss.backward()
    return {f"model.{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", [BertForMaskedLM, GPT2LMHeadModel])
def test_accumulated_language_modelling_weighs_every_word_the_same(tmp_path, masked, sentences, kind):
    """Micro-batches hold different numbers of words; the mean of their means is another gradient."""
    torch.manual_seed(0)
    settings = (tiny.bert() if kind is BertForMaskedLM else tiny.gpt2()).config
    start = kind(settings).state_dict()
    if kind is GPT2LMHeadModel:
        tokens = sentences.with_format(None)["input_ids"]
        masked = tiny.with_column(sentences, "labels", [[t or IGNORED_LABEL for t in row] for row in tokens])

    def fresh():
        model = kind(settings)
        model.load_state_dict(start)
        return model

    args = config(
        tmp_path,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_steps=1,
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
    )
    found = first_gradients(PretrainingTrainer(fresh(), args, train_dataset=masked))
    assert_same(whole_batch_gradient(fresh(), masked, 8), found, rtol=1e-4, atol=1e-7)


def test_pre_training_has_the_loss_of_the_model_in_evaluation_too(tmp_path, masked):
    torch.manual_seed(0)
    model = BertForMaskedLM(tiny.bert().config)
    args = config(tmp_path, per_device_eval_batch_size=24, max_steps=20)
    trainer = PretrainingTrainer(model, args, train_dataset=masked, eval_dataset=masked)
    with torch.no_grad():
        expected = model.eval()(**tiny.batch_of(masked, 24)).loss.item()
    before = trainer.evaluate()["eval_loss"]
    assert before == pytest.approx(expected, abs=1e-5)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


def test_masks_are_the_same_in_worker_processes_after_a_stop_and_in_every_evaluation(tmp_path, sentences):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "[UNK]"})
    rows = sentences.remove_columns("labels")

    def trainer(name: str, **changes) -> PretrainingTrainer:
        set_seed(0)
        model = BertForMaskedLM(tiny.bert(attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0).config)
        settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, **changes}
        collator = DataCollatorForLanguageModeling(tokenizer)
        args = config(tmp_path / name, **settings)
        return PretrainingTrainer(model, args, train_dataset=rows, eval_dataset=rows, data_collator=collator)

    straight, in_workers = trainer("straight"), trainer("workers", dataloader_num_workers=1)
    straight.train()
    in_workers.train()
    assert_same(state_of(straight), state_of(in_workers))
    resumed = trainer("resumed")
    torch.manual_seed(123)
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    assert_same(state_of(straight), state_of(resumed))
    assert straight.evaluate()["eval_loss"] == straight.evaluate()["eval_loss"]


def test_pre_training_without_labels_is_evaluated(tmp_path, digits):
    """Masked image modelling: the model makes its own targets."""
    from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForMaskedImageModeling

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    decoder = {f"decoder_{name}": value for name, value in sizes.items()}
    pixels = {"modality": "image", "image_size": 14, "patch_size": 7, "num_channels": 1}
    model = FlowformerForMaskedImageModeling(FlowformerConfig(**sizes, **decoder, **pixels, mask_ratio=0.5))
    rows = digits.remove_columns("labels")
    args = config(
        tmp_path,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
    )
    trainer = PretrainingTrainer(model, args, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert trainer.state.best_metric == min(losses)


def test_pre_training_that_lacks_its_labels_says_so(tmp_path, sentences):
    model = BertForMaskedLM(tiny.bert().config)
    trainer = PretrainingTrainer(model, config(tmp_path), train_dataset=sentences.remove_columns("labels"))
    with pytest.raises(ValueError, match="the batch has no labels"):
        trainer.train()


# Regression under a shift.
