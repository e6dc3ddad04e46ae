import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_transfer.data.images import image_processor
from hf_transfer.multi_model import Ensemble, load_members
from hf_transfer.multi_model.ensemble import EnsembleConfig
from hf_transfer.runs.evaluate import run_evaluation
from tests import tiny


def of_kind(kind):
    torch.manual_seed(0)
    if kind == "images":
        models = [tiny.vit(initializer_range=0.3), tiny.resnet(), tiny.flowformer(), tiny.convnext()]
        return models, {"pixel_values": torch.randn(3, 1, 14, 14)}, AutoModelForImageClassification
    inputs = tiny.batch_of(tiny.text_rows())
    del inputs["labels"]
    models = [tiny.bert(initializer_range=0.3), tiny.llama(), tiny.gpt2()]
    return models, inputs, AutoModelForSequenceClassification


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_value_against_the_formula_and_the_folder_is_the_whole(kind, tmp_path):
    models, inputs, auto_class = of_kind(kind)
    weights = list(range(1, len(models) + 1))
    logits = [model.eval()(**inputs).logits for model in models]
    expected = sum(w / sum(weights) * z.softmax(1) for w, z in zip(weights, logits))
    ensemble = Ensemble.of(models, weights)
    torch.testing.assert_close(ensemble(**inputs).logits.softmax(1), expected)
    ensemble.save_pretrained(tmp_path)
    for loader in (Ensemble, auto_class):
        loaded, report = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values()) and isinstance(loaded, Ensemble)
        assert torch.equal(loaded(**inputs).logits, ensemble(**inputs).logits)


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_several_labels_and_numbers(kind):
    torch.manual_seed(0)
    models = [tiny.vit(num_labels=3, initializer_range=0.3, problem_type=kind).eval() for _ in range(2)]
    pixels = torch.randn(3, 1, 14, 14)
    squash = torch.sigmoid if kind.startswith("multi") else (lambda z: z)
    expected = sum(squash(model(pixels).logits) for model in models) / 2
    labels = torch.randint(2, (3, 3)).float()
    outputs = Ensemble.of(models)(pixels, labels=labels)
    torch.testing.assert_close(squash(outputs.logits), expected)
    losses = {"regression": torch.nn.functional.mse_loss}
    loss = losses.get(kind, torch.nn.functional.binary_cross_entropy_with_logits)
    torch.testing.assert_close(outputs.loss, loss(outputs.logits, labels))


def test_the_gradient_reaches_every_member():
    models, inputs, _ = of_kind("images")
    alone = [copy.deepcopy(model).eval() for model in models]
    labels = torch.tensor([0, 3, 9])
    Ensemble.of(models)(**inputs, labels=labels).loss.backward()
    mean = sum(model(**inputs).logits.softmax(1) for model in alone) / len(alone)
    torch.nn.functional.nll_loss(mean.log(), labels).backward()
    for model, other in zip(models, alone):
        for (name, one), two in zip(model.named_parameters(), other.parameters()):
            if two.grad is not None:
                torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_one_model_alone_is_itself_and_weights_of_nothing_leave_members_out():
    models, inputs, _ = of_kind("images")
    expected = models[1].eval()(**inputs).logits
    single = Ensemble.of(models, [0, 2, 0, 0])
    assert len(single.members) == 1 and single.config.weights == [1.0]
    torch.testing.assert_close(single(**inputs).logits.log_softmax(1), expected.log_softmax(1))


def test_members_from_folders_have_their_labels_in_one_order(tmp_path):
    torch.manual_seed(0)
    folders, names = [], (["a", "b", "c"], ["c", "a", "b"])
    models = []
    for place, labels in enumerate(names):
        model = tiny.vit(num_labels=3, initializer_range=0.3)
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {name: i for i, name in enumerate(labels)}
        model.save_pretrained(tmp_path / str(place))
        folders.append(str(tmp_path / str(place)))
        models.append(model.eval())
    pixels = torch.randn(2, 1, 14, 14)
    expected = models[0](pixels).logits.softmax(1) + models[1](pixels).logits.softmax(1)[:, [1, 2, 0]]
    ensemble = Ensemble.of(load_members(folders))
    torch.testing.assert_close(ensemble(pixels).logits.softmax(1), expected / 2)
    assert ensemble.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_saved_ensemble_is_evaluated_as_any_other_model(here, tmp_path):
    models = load_members(["vit", "flow"])
    ensemble = Ensemble.of(models, [1, 3])
    ensemble.save_pretrained(tmp_path / "ensemble")
    image_processor(14, num_channels=1).save_pretrained(tmp_path / "ensemble")
    metrics = run_evaluation(str(tmp_path / "ensemble"), "digits")
    assert 0 <= metrics["accuracy"] <= 1 and metrics["loss"] > 0
    alone = [run_evaluation(name, "digits")["loss"] for name in ("vit", "flow")]
    assert metrics["loss"] <= 0.25 * alone[0] + 0.75 * alone[1] + 1e-4, "the loss is convex in the probabilities"


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_weights_that_are_none_raise(weights):
    with pytest.raises(ValueError, match="`weights` should be a number of at least 0 for each of 2 models"):
        Ensemble.of([tiny.vit(), tiny.vit()], weights)


def test_members_that_do_not_fit_together_are_refused(here, tmp_path):
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble.of([])
    with pytest.raises(ValueError, match="same number of labels; member 0 .* has 10, member 1 .* 3"):
        Ensemble.of([tiny.vit(), tiny.vit(num_labels=3)])
    with pytest.raises(ValueError, match="same main input; member 0 .* has pixel_values, member 1 .* input_ids"):
        Ensemble.of([tiny.vit(num_labels=3), tiny.bert()])
    with pytest.raises(ValueError, match="`bert` reads `input_ids` and `vit` `pixel_values`"):
        load_members(["vit", "bert"])
    with pytest.raises(ValueError, match="`three` has 3 labels and `vit` 10"):
        load_members(["vit", "three"])
    with pytest.raises(ValueError, match="`moved`, named by `sources`, cannot be loaded"):
        load_members(["vit", "moved"])
    tiny.vit().save_pretrained(tmp_path / "other")
    image_processor(28, num_channels=1).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="`other` was saved with an image processor of `size`"):
        load_members(["vit", "other"])
    with pytest.raises(StrictDataclassError, match="`weights` should be one for each of 0 members"):
        EnsembleConfig(members=[], weights=[1.0])
    with pytest.raises(ValueError, match="a member should be a classifier or a regression"):
        Ensemble.of([tiny.vit().vit])
