import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_transfer.multi_model import greedy_soup, uniform_soup
from tests import tiny


def models_of(values, **config):
    """Models whose classifier's bias holds one number each."""
    made = []
    for seed, value in enumerate(values):
        torch.manual_seed(seed)
        model = tiny.vit(**config)
        torch.nn.init.constant_(model.classifier.bias, value)
        made.append(model)
    return made


def bias_of(model) -> float:
    return model.classifier.bias[0].item()


def test_value_against_the_formula():
    models = models_of([1.0, 2.0, 6.0])
    soup = uniform_soup(models)
    for name, value in soup.model.state_dict().items():
        expected = sum(model.state_dict()[name] for model in models) / 3
        torch.testing.assert_close(value, expected)
    assert bias_of(soup.model) == pytest.approx(3.0) and bias_of(models[0]) == 1.0
    assert bias_of(uniform_soup(models, [1, 1, 2]).model) == pytest.approx(15 / 4)


def test_whole_numbers_stay_and_moving_statistics_are_averaged():
    models = [tiny.resnet(), tiny.resnet()]
    models[1].train()(torch.randn(4, 1, 14, 14))
    soup = uniform_soup(models).model.state_dict()
    name = next(name for name in soup if name.endswith("running_mean"))
    torch.testing.assert_close(soup[name], models[1].state_dict()[name] / 2)
    counter = next(name for name in soup if name.endswith("num_batches_tracked"))
    assert soup[counter] == 0 and soup[counter].dtype == torch.long


def test_narrow_weights_are_summed_in_float32():
    models = [model.to(torch.bfloat16) for model in models_of([1.0] + [1 / 256] * 8)]
    soup = uniform_soup(models).model
    assert soup.classifier.bias.dtype == torch.bfloat16
    exact = torch.tensor((1 + 8 / 256) / 9).to(torch.bfloat16)
    assert soup.classifier.bias[0] == exact, "in bfloat16 1 + 1/256 is 1"


def test_the_greedy_soup_keeps_what_does_not_hurt():
    """The score wants a bias of 3: 4 comes first, 1 makes (4 + 1) / 2 no worse, 9 hurts."""
    models = models_of([9.0, 4.0, 1.0, 2.0])
    seen = []

    def score(model):
        seen.append(bias_of(model))
        return -abs(bias_of(model) - 3)

    soup = greedy_soup(models, score)
    assert seen == pytest.approx([9, 4, 1, 2, 3, 7 / 3, 5])
    assert soup.kept == (1, 3) and soup.score == pytest.approx(0) and bias_of(soup.model) == pytest.approx(3)
    assert soup.scores == pytest.approx((-6, -1, -2, -1)) and not soup.model.training


def test_models_from_folders_and_a_soup_that_is_saved(zoo, tmp_path, digits):
    soup = uniform_soup([zoo["first"], zoo["second"]])
    soup.model.save_pretrained(tmp_path)
    pixels = tiny.batch_of(digits)["pixel_values"]
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(pixels).logits, soup.model.eval()(pixels).logits)
    same = uniform_soup([zoo["first"], zoo["first"]])
    first = AutoModelForImageClassification.from_pretrained(zoo["first"]).eval()
    torch.testing.assert_close(same.model.eval()(pixels).logits, first(pixels).logits)


def named(model, names):
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    return model


def test_classes_in_another_order_are_put_in_that_of_the_first(tmp_path):
    models = [named(tiny.vit(num_labels=3), names) for names in (["a", "b", "c"], ["c", "a", "b"])]
    models[1].save_pretrained(tmp_path)
    weights = [model.classifier.weight.detach().clone() for model in models]
    for second in (models[1], str(tmp_path)):
        soup = uniform_soup([models[0], second]).model
        torch.testing.assert_close(soup.classifier.weight, (weights[0] + weights[1][[1, 2, 0]]) / 2)
        assert greedy_soup([models[0], second], lambda model: 0.0).kept == (0, 1)
    assert torch.equal(models[1].classifier.weight, weights[1]), "the given model stays as it is"
    with pytest.raises(ValueError, match="a ViTForImageClassification has other labels than the first model: `d`"):
        uniform_soup([models[0], named(tiny.vit(num_labels=3), ["a", "b", "d"])])


def test_bad_input_raises(zoo):
    with pytest.raises(ValueError, match="a soup needs"):
        uniform_soup([])
    with pytest.raises(ValueError, match="at least one model"):
        greedy_soup([], score=lambda model: 0.0)
    with pytest.raises(ValueError, match="a positive weight for each of 2 models"):
        uniform_soup([tiny.vit(), tiny.vit()], [1.0, 0.0])
    message = r"`vit.embeddings.cls_token` has shape \[1, 1, 16\] in the first model and shape \[1, 1, 24\] in model 1"
    with pytest.raises(ValueError, match=message):
        uniform_soup([zoo["first"], zoo["wide"]])
    with pytest.raises(ValueError, match="`vit.embeddings.cls_token` has shape .* and no such tensor in model 1"):
        greedy_soup([zoo["first"], zoo["resnet"]], score=lambda model: 0.0)
    with pytest.raises(ValueError, match="named by `models`, cannot be loaded"):
        uniform_soup(["moved"])
