"""PEFT's prompts on every Flowformer head that takes text; prefixes are refused."""

from __future__ import annotations

import pytest
import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model

from hf_transfer.models.flowformer import (
    FlowformerConfig,
    FlowformerForCausalLM,
    FlowformerForQuestionAnswering,
    FlowformerForSequenceClassification,
    FlowformerForTokenClassification,
    FlowformerModel,
)

LENGTH, VIRTUAL = 7, 3
IDS = torch.randint(1, 50, (2, LENGTH), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * LENGTH, [1] * 5 + [0] * 2])
HEADS = {
    "SEQ_CLS": (FlowformerForSequenceClassification, {"labels": torch.tensor([0, 1])}, "logits", (2, 2)),
    "TOKEN_CLS": (FlowformerForTokenClassification, {"labels": IDS % 2}, "logits", (2, LENGTH + VIRTUAL, 2)),
    "CAUSAL_LM": (FlowformerForCausalLM, {"labels": IDS}, "logits", (2, LENGTH + VIRTUAL, 50)),
    "QUESTION_ANS": (
        FlowformerForQuestionAnswering,
        {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 4])},
        "start_logits",
        (2, LENGTH + VIRTUAL),
    ),
    "FEATURE_EXTRACTION": (FlowformerModel, {}, "last_hidden_state", (2, LENGTH + VIRTUAL, 16)),
}
PROMPTS = {
    "prompt_tuning": lambda task: PromptTuningConfig(task_type=task, num_virtual_tokens=VIRTUAL),
    "p_tuning": lambda task: PromptEncoderConfig(task_type=task, num_virtual_tokens=VIRTUAL, encoder_hidden_size=8),
}


def head(task: str) -> torch.nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    return HEADS[task][0](FlowformerConfig(modality="text", vocab_size=50, pad_token_id=0, **sizes))


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("task", HEADS)
def test_a_prompt_is_learned(task, prompt, tmp_path):
    _, targets, name, shape = HEADS[task]
    model = get_peft_model(head(task), PROMPTS[prompt](task)).eval()
    before = {key: value.clone() for key, value in model.get_base_model().state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    def forward():
        output = model(input_ids=IDS, attention_mask=MASK, **targets)
        return output, output.loss if targets else output.last_hidden_state[..., 0].mean()

    output, first = forward()
    assert output[name].shape == shape
    first.backward()
    assert all(
        p.grad is not None for key, p in model.named_parameters() if "prompt_encoder" in key and p.requires_grad
    )
    optimizer.step()
    after, second = forward()
    assert second < first and not torch.equal(after[name], output[name])
    heads = ("classifier", "qa_outputs", "score")
    frozen = {key: value for key, value in model.get_base_model().state_dict().items() if key in before}
    assert all(torch.equal(frozen[key], before[key]) for key in frozen if not key.startswith(heads))


def test_the_loss_of_tokens_leaves_the_prompt_out():
    model = get_peft_model(head("TOKEN_CLS"), PROMPTS["prompt_tuning"]("TOKEN_CLS")).eval()
    labels = HEADS["TOKEN_CLS"][1]["labels"]
    output = model(input_ids=IDS, attention_mask=MASK, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits[:, VIRTUAL:].flatten(0, 1), labels.flatten())
    assert torch.allclose(output.loss, expected)


def test_a_causal_model_with_a_prompt_generates():
    model = get_peft_model(head("CAUSAL_LM"), PROMPTS["p_tuning"]("CAUSAL_LM")).eval()
    assert model.generate(input_ids=IDS, max_new_tokens=2, do_sample=False).shape == (2, LENGTH + 2)


@pytest.mark.parametrize("task", HEADS)
def test_a_prefix_is_refused(task):
    model = get_peft_model(head(task), PrefixTuningConfig(task_type=task, num_virtual_tokens=VIRTUAL))
    with pytest.raises(ValueError, match=r"Prefix tuning .*: use prompt tuning \(PromptTuningConfig\) or P-tuning"):
        model(input_ids=IDS, attention_mask=MASK)
