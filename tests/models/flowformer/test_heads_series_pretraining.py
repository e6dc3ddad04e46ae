import pytest
import torch

from hf_transfer.models.flowformer import (
    DecisionFlowformer,
    FlowformerForTimeSeriesPretraining,
    FlowformerForTrajectoryPretraining,
)
from tests.models.flowformer.tiny import tiny_config, tiny_inputs

MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])
HIDDEN = torch.tensor([[0, 1, 1, 0, 0, 0, 1], [1, 0, 0, 0, 1, 1, 0]])


def series_model(**fields) -> FlowformerForTimeSeriesPretraining:
    torch.manual_seed(0)
    return FlowformerForTimeSeriesPretraining(tiny_config("time_series", **fields)).eval()


def test_the_loss_of_hidden_steps_and_its_gradient():
    """Hidden steps behind the end of a series do not count."""
    model = series_model()
    values = tiny_inputs(model.config)["past_values"]
    output = model(past_values=values, attention_mask=MASK, hidden_steps=HIDDEN)
    errors = [
        (output.logits[row, step] - values[row, step]).square().mean()
        for row in range(2)
        for step in range(7)
        if HIDDEN[row, step] and MASK[row, step]
    ]
    expected = sum(errors) / len(errors)
    torch.testing.assert_close(output.loss, expected)
    names, parameters = zip(*((name, value) for name, value in model.named_parameters() if value.requires_grad))
    ours = torch.autograd.grad(output.loss, parameters, retain_graph=True, allow_unused=True)
    naive = torch.autograd.grad(expected, parameters, allow_unused=True)
    for name, one, other in zip(names, ours, naive):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other)


def test_what_is_hidden_and_what_is_padding_is_not_seen():
    model = series_model()
    values = tiny_inputs(model.config)["past_values"]
    changed = values.clone()
    changed[HIDDEN.bool()] = 7.0
    changed[~MASK.bool()] = float("nan")
    first, second = (
        model(past_values=one, attention_mask=MASK, hidden_steps=HIDDEN).logits for one in (values, changed)
    )
    torch.testing.assert_close(first[MASK.bool()], second[MASK.bool()])
    seen = model(past_values=values, attention_mask=MASK).logits
    assert not torch.allclose(first[MASK.bool()], seen[MASK.bool()])


def test_the_loss_of_the_next_step():
    model = series_model(is_causal=True)
    values = tiny_inputs(model.config)["past_values"]
    output = model(past_values=values, attention_mask=MASK)
    errors = [
        (output.logits[row, step] - values[row, step + 1]).square().mean()
        for row, steps in enumerate((7, 5))
        for step in range(steps - 1)
    ]
    torch.testing.assert_close(output.loss, sum(errors) / len(errors))
    later = values.clone()
    later[:, 4:] = 0
    torch.testing.assert_close(model(past_values=later).logits[:, :4], model(past_values=values).logits[:, :4])
    assert series_model()(past_values=values).loss is None, "a model that sees every step has nothing to predict"


def test_masks_of_another_shape_are_refused():
    model = series_model()
    values = tiny_inputs(model.config)["past_values"]
    with pytest.raises(ValueError, match="`hidden_steps` should be of shape"):
        model(past_values=values, hidden_steps=HIDDEN[:, :3])


def test_trajectories_learn_actions_and_next_states(tmp_path):
    torch.manual_seed(0)
    model = FlowformerForTrajectoryPretraining(tiny_config("trajectory")).eval()
    inputs = tiny_inputs(model.config)
    output = model(**inputs, attention_mask=MASK, labels=inputs["actions"])
    model.save_pretrained(tmp_path)
    plain = DecisionFlowformer.from_pretrained(tmp_path)
    actions = plain(**inputs, attention_mask=MASK, labels=inputs["actions"])
    torch.testing.assert_close(actions.action_preds, output.action_preds)
    hidden = model.flowformer(**inputs, attention_mask=MASK).last_hidden_state[:, 2::3]
    errors = [
        (model.predict_state(hidden[row, step]) - inputs["states"][row, step + 1]).square().mean()
        for row, steps in enumerate((7, 5))
        for step in range(steps - 1)
    ]
    torch.testing.assert_close(output.loss, actions.loss + sum(errors) / 12)
    assert model.loss_items(**inputs, attention_mask=MASK) == 12 == model.loss_items(**inputs) - 2
