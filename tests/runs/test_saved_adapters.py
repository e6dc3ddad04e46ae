"""Adapters of every kind come back from their folders as they were."""

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

from hf_transfer.hub import complete_adapter
from hf_transfer.runs.arguments import ModelArguments
from hf_transfer.runs.models import load_model, with_adapter
from hf_transfer.runs.task import find_evaluation_task
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny

TASK = "text-classification"
NAMES = ["bad", "good"]
LAYERS = {"target_modules": ["query", "value"]}
TOKENS = {"num_virtual_tokens": 4, "task_type": "SEQ_CLS"}
KINDS = {
    "lora": {"peft_type": "LORA", **LAYERS},
    "dora": {"peft_type": "LORA", "use_dora": True, **LAYERS},
    "adalora": {"peft_type": "ADALORA", "total_step": 10, **LAYERS},
    "vera": {"peft_type": "VERA", "r": 4, **LAYERS},
    "vblora": {"peft_type": "VBLORA", "num_vectors": 16, "vector_length": 4, **LAYERS},
    "prompt_tuning": {"peft_type": "PROMPT_TUNING", **TOKENS},
    "p_tuning": {"peft_type": "P_TUNING", "encoder_hidden_size": 16, **TOKENS},
    "prefix_tuning": {"peft_type": "PREFIX_TUNING", **TOKENS},
    "projected_prefix": {"peft_type": "PREFIX_TUNING", "prefix_projection": True, "encoder_hidden_size": 8, **TOKENS},
}
ENCODED = ("p_tuning", "projected_prefix")


def adapted(kind: str, seed: int = 0) -> PeftModel:
    """An adapter whose trained weights are random, on the saved model `bert`."""
    torch.manual_seed(seed)
    model = with_adapter(load_model(ModelArguments(model="bert", task=TASK), NAMES), KINDS[kind])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def logits(model: PeftModel) -> torch.Tensor:
    rows = tiny.batch_of(tiny.text_rows())
    return model.eval()(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_answers_as_it_did(kind, here):
    model = adapted(kind)
    model.save_pretrained("adapter")
    complete_adapter("adapter", model.config)
    arguments = ModelArguments(model="adapter", task=TASK)
    found = load_model(arguments, allow_new_weights=False)
    torch.testing.assert_close(logits(found), logits(model))
    assert list(found.config.id2label.values()) == NAMES
    if kind in ENCODED:
        with pytest.raises(ValueError, match="keeps what its encoder gave and not the encoder"):
            load_model(arguments, NAMES)
        return
    trained = load_model(arguments, NAMES)
    torch.testing.assert_close(logits(trained), logits(model))
    assert any(parameter.requires_grad for parameter in trained.parameters())


@pytest.mark.parametrize("kind", ["lora", "dora", "prompt_tuning"])
def test_a_head_for_other_classes_is_new(kind, here, caplog):
    model = adapted(kind)
    model.save_pretrained("adapter")
    complete_adapter("adapter", model.config)
    arguments = ModelArguments(model="adapter", task=TASK)
    found = load_model(arguments, ["a", "b", "c"])
    assert logits(found).shape[1] == 3 and "start at random" in caplog.text
    state, stored = found.state_dict(), model.state_dict()
    layers = [name for name in stored if "lora_A" in name or "prompt_encoder" in name]
    assert layers and all(torch.equal(state[name], stored[name]) for name in layers)


@pytest.mark.parametrize("kind", ENCODED)
def test_a_checkpoint_holds_the_encoder_of_virtual_tokens(kind, here):
    model = TransferModel(adapted(kind))
    model.save_pretrained("checkpoint")
    other = TransferModel(adapted(kind, seed=1))
    other.load_weights("checkpoint")
    state = model.state_dict()
    assert any("prompt_encoder" in name for name in state)
    for name, value in other.state_dict().items():
        # the head that the trained one stands in for is not saved
        assert "original_module" in name or torch.equal(value, state[name]), name


@pytest.mark.parametrize("told", [{}, {"task_type": "SEQ_CLS"}])
def test_the_task_of_an_adapter_is_its_own_and_not_that_of_its_base(told, here):
    GPT2LMHeadModel(tiny.gpt2().config).save_pretrained("causal")
    model = load_model(ModelArguments(model="causal", task=TASK), NAMES)
    with_adapter(model, {"peft_type": "LORA", "target_modules": ["c_attn"], **told}).save_pretrained("adapter")

    def not_asked():
        raise AssertionError("the rows are not needed")

    assert find_evaluation_task(ModelArguments(model="adapter"), not_asked) == TASK


def test_virtual_tokens_by_task_are_refused_before_training():
    with pytest.raises(ValueError, match="MULTITASK_PROMPT_TUNING reads the number of a task with every row"):
        with_adapter(tiny.bert(), {"peft_type": "MULTITASK_PROMPT_TUNING", "num_tasks": 2, **TOKENS})


def test_training_goes_on_in_the_layers_of_a_saved_adapter(here):
    model = adapted("lora")
    model.save_pretrained("adapter")
    complete_adapter("adapter", model.config)
    trained = load_model(ModelArguments(model="adapter", task=TASK), NAMES)
    names = {name for name, parameter in trained.named_parameters() if parameter.requires_grad}
    assert names == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert isinstance(trained, PeftModel)


def test_a_second_adapter_on_a_saved_one_is_refused(here):
    """It would be saved as one of the base alone."""
    adapted("lora").save_pretrained("adapter")
    with pytest.raises(ValueError, match="the new one that `peft` asks for would be saved without it"):
        load_model(ModelArguments(model="adapter", task=TASK, peft=KINDS["lora"]), NAMES)
