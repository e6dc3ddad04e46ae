"""TENT against its formula, on rows and tokens, and through the evaluation of a saved model."""

import copy

import pytest
import torch

from hf_transfer.domain_adaptation.tent import convert
from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForTimeSeriesClassification
from hf_transfer.runs.evaluate import run_evaluation
from tests import tiny
from tests.modeling.test_readouts import tagger


def batches(count: int = 3) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.randn(6, 1, 14, 14, generator=generator)} for _ in range(count)]


def naive(model, given, logits_of, learning_rate=1e-3, steps=1):
    """The answers of the formula written out; the model's batch norms use batch statistics."""
    kinds = (torch.nn.LayerNorm, torch.nn.BatchNorm2d)
    norms = [one for one in model.modules() if isinstance(one, kinds)]
    for one in norms:
        if isinstance(one, torch.nn.BatchNorm2d):
            one.track_running_stats, one.running_mean, one.running_var = False, None, None
    optimizer = torch.optim.Adam([p for one in norms for p in (one.weight, one.bias)], lr=learning_rate)
    answers = []
    for batch in given:
        for _ in range(steps):
            logits = model(**batch).logits
            p = logits_of(logits, batch).softmax(dim=-1)
            (-(p * p.log()).sum(dim=-1).mean()).backward()
            optimizer.step()
            model.zero_grad()
        answers.append(logits.detach())
    return answers


@pytest.mark.parametrize("make", [tiny.vit, tiny.resnet])
@pytest.mark.parametrize("keywords", [{}, {"learning_rate": 0.05, "steps": 2}])
def test_answers_and_weights_are_those_of_the_formula(make, keywords):
    torch.manual_seed(0)
    model = make().eval()
    plain, start = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    expected = naive(plain, batches(), lambda logits, batch: logits, **keywords)
    converted = convert(model, **keywords)
    with torch.no_grad():
        answers = [converted(**batch).logits for batch in batches()]
    for one, other in zip(answers, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert not one.requires_grad
    values, moved = dict(plain.named_parameters()), set()
    for name, value in converted.named_parameters():
        torch.testing.assert_close(value, values[name], rtol=1e-3, atol=2e-5)
        moved |= {name} if not torch.equal(value, start[name]) else set()
    assert moved and all("norm" in name.lower() for name in moved)
    if make is tiny.vit:
        assert "vit.layernorm.weight" in moved


def test_only_real_tokens_count():
    torch.manual_seed(0)
    model = tagger()
    ids = torch.randint(5, 100, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[0, 3:] = 0
    batch = {"input_ids": ids, "attention_mask": mask}
    expected = naive(copy.deepcopy(model), [batch] * 2, lambda logits, one: logits[one["attention_mask"].bool()])
    converted = convert(model)
    for answers in expected:
        torch.testing.assert_close(converted(**batch).logits, answers, rtol=1e-4, atol=1e-5)


def test_batch_norms_that_read_a_mask_leave_padding_out():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = FlowformerConfig(
        modality="time_series", num_input_channels=2, norm_type="batch_norm", num_labels=3, **sizes
    )
    model = FlowformerForTimeSeriesClassification(config).eval()
    running = {name: one.clone() for name, one in model.named_buffers() if "running" in name}
    series, mask = torch.randn(4, 6, 2), torch.ones(4, 6, dtype=torch.long)
    mask[1:, 4:] = 0
    other = torch.where(mask.bool().unsqueeze(-1), series, 9.0)
    answers = [
        convert(copy.deepcopy(model))(past_values=values, attention_mask=mask).logits for values in (series, other)
    ]
    torch.testing.assert_close(*answers)
    assert not torch.allclose(answers[0], model(past_values=series, attention_mask=mask).logits)
    converted = convert(model)
    converted(past_values=series, attention_mask=mask)
    assert running and all(torch.equal(dict(converted.named_buffers())[name], one) for name, one in running.items())


def test_predictions_become_more_certain():
    torch.manual_seed(0)
    model, batch = tiny.vit().eval(), batches(1)[0]
    model.classifier.weight.data *= 20
    converted = convert(model, learning_rate=0.02)
    entropies = []
    for _ in range(10):
        p = converted(**batch).logits.softmax(dim=-1)
        entropies.append(float(-(p * p.log()).sum(dim=-1).mean()))
    assert entropies[-1] < 0.9 * entropies[0]


@pytest.mark.parametrize("keywords", [{"learning_rate": 0.0}, {"steps": 0}])
def test_keywords_out_of_range_are_refused(keywords):
    with pytest.raises(ValueError, match="`learning_rate` should be positive and `steps` at least 1"):
        convert(tiny.vit(), **keywords)


def test_models_without_classes_and_trainings_are_refused():
    with pytest.raises(ValueError, match="makes predictions of classes certain"):
        convert(tiny.vit(num_labels=1))
    with pytest.raises(ValueError, match="leave it out of the training's converters"):
        convert(tiny.vit()).train()(**batches(1)[0])


def test_an_evaluation_adapts_to_its_rows(here):
    plain, adapted = (run_evaluation("vit", "digits", converters=one) for one in (None, {"tent": {"steps": 3}}))
    assert plain.keys() == adapted.keys() and plain["loss"] != adapted["loss"]
    assert run_evaluation("vit", "digits") == plain, "the folder stays as it is"
