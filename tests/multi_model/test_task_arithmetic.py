import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_transfer.multi_model import merge_task_arithmetic, uniform_soup
from hf_transfer.multi_model.task_vectors import start_of
from tests import tiny

HEAD = ("classifier.weight", "classifier.bias")


def vits(count: int):
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(tiny.vit(initializer_range=0.3))
    return made


def test_value_against_the_formula():
    base, *models = vits(4)
    merged = merge_task_arithmetic(models, base, scale=0.4)
    start, states = base.state_dict(), [model.state_dict() for model in models]
    for name, value in merged.model.state_dict().items():
        moved = start[name] + 0.4 * sum(state[name] - start[name] for state in states)
        expected = sum(state[name] for state in states) / 3 if name in HEAD else moved
        torch.testing.assert_close(value, expected)
    assert merged.kept == (0, 1, 2)


def test_a_third_of_three_task_vectors_is_the_uniform_soup():
    base, *models = vits(4)
    soup = uniform_soup(models).model.state_dict()
    for name, value in merge_task_arithmetic(models, base, scale=1 / 3).model.state_dict().items():
        torch.testing.assert_close(value, soup[name])


def test_variances_stay_positive():
    """A variance that fell from 1 to .1 in all of five models would come to 1 - .3 * 5 * .9 < 0."""
    base, models = tiny.resnet(), [tiny.resnet() for _ in range(5)]
    for model in models:
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.fill_(0.1)
    merged = merge_task_arithmetic(models, base, scale=0.3).model.state_dict()
    torch.testing.assert_close(next(v for n, v in merged.items() if n.endswith("running_var")), torch.full((8,), 0.1))


def test_from_folders_and_a_start_without_a_head(zoo, tmp_path):
    base = tiny.vit(initializer_range=0.3)
    base.vit.save_pretrained(tmp_path / "start")
    merged = merge_task_arithmetic([zoo["first"], zoo["second"]], str(tmp_path / "start"))
    models = [AutoModelForImageClassification.from_pretrained(zoo[name]) for name in ("first", "second")]
    same = merge_task_arithmetic(models, base)
    for name, value in merged.model.state_dict().items():
        torch.testing.assert_close(value, same.model.state_dict()[name])
    assert not set(HEAD) & set(start_of(base, str(tmp_path / "start")))


def test_bad_input_raises(zoo):
    model = tiny.vit()
    with pytest.raises(ValueError, match="`scale` should be positive"):
        merge_task_arithmetic([model], model, scale=0.0)
    with pytest.raises(ValueError, match="at least one"):
        merge_task_arithmetic([], model)
    with pytest.raises(ValueError, match=r"`vit.embeddings.cls_token` has shape \[1, 1, 16\] in the fine-tuned .* 24"):
        merge_task_arithmetic([zoo["first"]], zoo["wide"])
    with pytest.raises(ValueError, match="named by `base`, cannot be loaded: it is a resnet"):
        merge_task_arithmetic([zoo["first"]], zoo["resnet"])
    with pytest.raises(ValueError, match="`vit.embeddings.cls_token` .* no such tensor in `base`"):
        merge_task_arithmetic([zoo["first"]], tiny.resnet())
    with pytest.raises(ValueError, match="in the first model and shape"):
        merge_task_arithmetic([zoo["first"], zoo["wide"]], zoo["first"])
