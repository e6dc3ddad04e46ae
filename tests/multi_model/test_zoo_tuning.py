import copy

import pytest
import torch
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_transfer.modeling.surgery import sidecars_of
from hf_transfer.multi_model.soup import uniform_soup
from hf_transfer.multi_model.zoo_tuned import ZooTuned
from hf_transfer.multi_model.zoo_tuning import convert, export, fold
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.training.converters import convert_model
from tests import tiny
from tests.marks import slow
from tests.multi_model.conftest import end_of
from tests.runs.folders import QUICK

TEXTS = {"bert": tiny.bert, "gpt2": tiny.gpt2, "llama": tiny.llama}


def converted(zoo, **keywords):
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_pretrained(zoo["first"])
    return convert(model, **{"checkpoints": [zoo["second"]], **keywords})


def disturb(model):
    """Gates and alignments that have learned something."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in sidecars_of(model)["zoo_tuning"].named_parameters():
            if "gates" in name or "alignment" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


@pytest.mark.parametrize("own_share", [None, 0.8])
@pytest.mark.parametrize("lite", [True, False])
def test_a_model_starts_as_the_soup_of_its_sources(zoo, digits, lite, own_share):
    pixels = tiny.batch_of(digits)["pixel_values"]
    model = converted(zoo, lite=lite, own_share=own_share)
    soup = uniform_soup([zoo["first"], zoo["second"]], None if own_share is None else [8, 2]).model
    soup.classifier.load_state_dict(model.classifier.state_dict())  # the head is the first model's own
    for mode in (model.train, model.eval):
        mode()
        torch.testing.assert_close(model(pixels).logits, soup.eval()(pixels).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lite", [True, False])
def test_sources_that_are_alike_change_nothing(zoo, digits, lite):
    pixels = tiny.batch_of(digits)["pixel_values"]
    plain = AutoModelForImageClassification.from_pretrained(zoo["first"]).eval()
    model = converted(zoo, checkpoints=[zoo["first"]] * 2, lite=lite).eval()
    torch.testing.assert_close(model(pixels).logits, plain(pixels).logits, rtol=1e-4, atol=1e-5)


def test_batch_norms_are_averaged_and_start_anew(tmp_path):
    torch.manual_seed(0)
    models = [tiny.resnet(), tiny.resnet()]
    for model in models:
        model.train()(torch.randn(4, 1, 14, 14))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.weight)
    models[1].save_pretrained(tmp_path)
    names = [name for name, one in models[0].named_modules() if isinstance(one, torch.nn.BatchNorm2d)]
    expected = {
        name: (models[0].get_submodule(name).weight + models[1].get_submodule(name).weight) / 2 for name in names
    }
    expected = {name: value.detach().clone() for name, value in expected.items()}
    model = convert(models[0], checkpoints=[str(tmp_path)])
    for name in names:
        norm = model.get_submodule(name)
        torch.testing.assert_close(norm.weight, expected[name])
        assert norm.weight.requires_grad and norm.running_mean.abs().max() == 0 and norm.running_var.min() == 1


def test_lite_folds_to_one_ordinary_folder(zoo, train, digits, tmp_path):
    pixels = tiny.batch_of(digits)["pixel_values"]
    model = disturb(converted(zoo))
    names = list(model.state_dict())
    trainer = train({}, model)
    start = {name: value.clone() for name, value in sidecars_of(model)["zoo_tuning"].state_dict().items()}
    trainer.train()
    assert list(model.state_dict()) == names
    moved = sidecars_of(model)["zoo_tuning"].state_dict()
    kinds = ("kernels", "biases", "alignment", "mean_gates", "gates.squeeze.weight", "gates.expand.weight")
    for kind in kinds:
        assert any(not torch.equal(moved[name], start[name]) for name in start if name.endswith(kind)), kind
    expected = trainer.adapted_model.eval()(pixels).logits
    folded = fold(model)
    assert not any("Zoo" in type(module).__name__ for module in folded.modules())
    torch.testing.assert_close(folded(pixels).logits, expected, rtol=0, atol=1e-6)
    folded.save_pretrained(tmp_path / "folded")
    trainer.save_model(str(tmp_path / "saved"))
    for folder in ("folded", "saved"):
        loaded, report = AutoModelForImageClassification.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not any(report.values())
        torch.testing.assert_close(loaded.eval()(pixels).logits, expected, rtol=0, atol=1e-6)


def test_a_folder_that_is_saved_in_the_middle_of_training_is_folded(zoo, digits, tmp_path):
    batch = tiny.batch_of(digits)
    model = disturb(converted(zoo)).train()
    model(batch["pixel_values"])
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(batch["pixel_values"]).logits, model.eval()(batch["pixel_values"]).logits)


def test_weights_that_are_loaded_afterwards_count(zoo, digits):
    """As the guard does with the source-only model."""
    pixels = tiny.batch_of(digits)["pixel_values"]
    model = converted(zoo).train()
    model(pixels)
    model.eval()(pixels)
    other = AutoModelForImageClassification.from_pretrained(zoo["second"]).eval()
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(pixels).logits, other(pixels).logits)
    assert torch.equal(model.state_dict()["vit.embeddings.cls_token"], other.state_dict()["vit.embeddings.cls_token"])


@pytest.mark.parametrize("lite", [True, slow(False)])
def test_it_resumes_exactly(zoo, train, tmp_path, lite):
    straight = train({}, disturb(converted(zoo, lite=lite)), save_strategy="steps", save_steps=2)
    end_of(straight)
    resumed = train({}, converted(zoo, lite=lite))
    with torch.no_grad():
        for tensor in resumed.transfer_model.state_dict().values():
            tensor.add_(1)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    state = resumed.transfer_model.state_dict()
    for name, value in straight.transfer_model.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("name", list(TEXTS))
def test_text_models_train_and_padding_changes_nothing(name, tmp_path):
    make = TEXTS[name]
    torch.manual_seed(1)
    make(initializer_range=0.3).save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = disturb(convert(make(initializer_range=0.3), checkpoints=[str(tmp_path)], lite=False))
    batch = tiny.batch_of(tiny.text_rows(), 4)
    model.train()(**batch).loss.backward()
    for key, parameter in sidecars_of(model)["zoo_tuning"].named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    short = {key: batch[key][:1, :8] for key in ("input_ids", "attention_mask")}
    short["attention_mask"] = torch.ones_like(short["attention_mask"])
    model.eval()
    padded = {key: torch.nn.functional.pad(value, (0, 5)) for key, value in short.items()}
    joined = {key: torch.cat([padded[key], batch[key][1:3, :13]]) for key in short}
    alone = model(**short).logits
    torch.testing.assert_close(model(**padded).logits, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(**joined).logits[:1], alone, rtol=1e-4, atol=1e-5)
    export(model).save_pretrained(tmp_path / "whole")
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(whole(**joined).logits[:1], alone, rtol=1e-4, atol=1e-5)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config.num_labels == 3


def test_a_copy_has_experts_of_its_own(zoo, digits):
    pixels = tiny.batch_of(digits)["pixel_values"]
    model = disturb(converted(zoo)).train()
    copied = copy.deepcopy(model)
    model(pixels)
    with torch.no_grad():
        for parameter in sidecars_of(model)["zoo_tuning"].parameters():
            parameter.zero_()
    reference = disturb(converted(zoo)).train()
    torch.testing.assert_close(copied(pixels).logits, reference(pixels).logits)


@pytest.mark.parametrize("checkpoints", [[], "folder"])
def test_an_invalid_keyword_raises(checkpoints):
    with pytest.raises(ValueError, match="`checkpoints` should be a list of at least one folder"):
        convert(tiny.vit(), checkpoints=checkpoints)
    with pytest.raises(ValueError, match=r"`own_share` should be in \(0, 1\), got 1.0"):
        convert(tiny.vit(), checkpoints=["moved"], own_share=1.0)
    with pytest.raises(TypeError, match="checkpoints"):
        convert_model(tiny.vit(), {"zoo_tuning": {}})


def test_sources_that_do_not_fit_are_refused(zoo, tmp_path):
    message = r"`vit.embeddings.cls_token` has shape \[1, 1, 16\] in the model in training and \[1, 1, 24\] in"
    with pytest.raises(ValueError, match=message):
        converted(zoo, checkpoints=[zoo["second"], zoo["wide"]])
    with pytest.raises(ValueError, match="named by `checkpoints`, cannot be loaded: it is a resnet and the model"):
        converted(zoo, checkpoints=[zoo["resnet"]])
    with pytest.raises(ValueError, match="`moved`, named by `checkpoints`, cannot be loaded"):
        converted(zoo, checkpoints=["moved"])
    model = converted(zoo)
    with pytest.raises(ValueError, match="converted by `zoo_tuning` before"):
        convert(model, checkpoints=[zoo["second"]])
    with pytest.raises(ValueError, match="was not converted by `zoo_tuning`"):
        fold(tiny.vit())
    with pytest.raises(ValueError, match="kernels that depend on the row cannot be folded"):
        fold(converted(zoo, lite=False))


def test_a_model_with_kernels_of_every_row_is_saved_whole(zoo, train, digits, tmp_path):
    pixels = tiny.batch_of(digits)["pixel_values"]
    model = disturb(converted(zoo, lite=False))
    trainer = train({}, model)
    trainer.train()
    expected = model.eval()(pixels).logits
    whole = export(model)
    assert torch.equal(whole(pixels).logits, expected)
    assert not any("alignment" in name for name in whole.state_dict()), "they are merged into the kernels"
    whole.save_pretrained(tmp_path)
    for loader in (AutoModelForImageClassification, ZooTuned):
        loaded, report = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values()) and isinstance(loaded, ZooTuned)
        torch.testing.assert_close(loaded(pixels).logits, expected)
    average = AutoModelForImageClassification.from_pretrained(zoo["first"])
    average.load_state_dict(model.state_dict())
    assert not torch.allclose(average.eval()(pixels).logits, expected, atol=1e-4), "rows have gates of their own"
    lite = converted(zoo)
    assert export(lite) is lite
    with pytest.raises(ValueError, match="was not converted"):
        export(tiny.vit())


@pytest.mark.parametrize("lite", [True, slow(False)])
def test_a_run_saves_what_it_measured(here, lite):
    """From the command line to the evaluation of the saved folder."""
    torch.manual_seed(3)
    tiny.vit(initializer_range=0.3).save_pretrained("other")
    keywords = f"{{zoo_tuning: {{checkpoints: [other], lite: {str(lite).lower()}}}}}"
    argv = ["--model", "vit", "--dataset", "digits", "--test_dataset", "more_digits", "--output_dir", "run", *QUICK]
    result = run_adaptation(parse_arguments([*argv, "--converters", keywords, "--learning_rate", "0.02"]))
    assert isinstance(AutoModelForImageClassification.from_pretrained("run/model"), ZooTuned) != lite
    assert run_evaluation("run/model", "more_digits")["loss"] == pytest.approx(result["loss"], abs=1e-5)
