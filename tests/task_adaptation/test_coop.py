"""CoOp against its formula, on saved models with two towers, and its adapter as PEFT alone reads it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, TrainableTokensConfig
from transformers import AutoModel, AutoProcessor

from hf_transfer.evaluation.image_text import class_embeddings
from hf_transfer.modeling.class_texts import read_class_texts
from hf_transfer.task_adaptation.coop import convert
from hf_transfer.training.converters import convert_model
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny
from tests.pretraining import pairs

NAMES = ["zero", "one", "number seven"]
CONTEXT = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved models with two towers, whose texts differ, and their processor."""
    place = tmp_path_factory.mktemp("pairs")
    for name, make in pairs.MODELS.items():
        model = make(seed=3)
        for parameter in model.text_model.parameters():
            parameter.data.mul_(5)
        model.save_pretrained(place / name)
        pairs.processor().save_pretrained(place / name)
    return place


def loaded(folder) -> torch.nn.Module:
    return AutoModel.from_pretrained(folder, id2label=dict(enumerate(NAMES))).eval()


def adapted(folder, **keywords) -> tuple[PeftModel, object]:
    """The model under a new context, and the tokenizer that reads it."""
    model = convert(loaded(folder), **{"context": CONTEXT, **keywords})
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    read_class_texts(model.config, tokenizer)
    return model, tokenizer


def pixels(rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, 1, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, generator=torch.Generator().manual_seed(1))


def context_of(model: PeftModel) -> torch.nn.Parameter:
    (found,) = (one for name, one in model.named_parameters() if "trainable_tokens_delta" in name)
    return found


def test_loss_and_gradient_against_the_formula(folders):
    """With a BERT, which takes embeddings: [context, name] by hand."""
    model, tokenizer = adapted(folders / "dual_encoder")
    labels, images = torch.tensor([2, 0, 1, 2]), pixels()
    context = context_of(model)
    loss = TransferModel(model).eval()(pixel_values=images, labels=labels).loss
    plain = loaded(folders / "dual_encoder")
    table = plain.text_model.get_input_embeddings()
    own = context.detach().clone().requires_grad_()
    texts = []
    for name in NAMES:
        *words, end = tokenizer(name)["input_ids"]
        states = torch.cat([own, table(torch.tensor([*words, end]))])[None]
        features = plain.text_projection(plain.text_model(inputs_embeds=states).pooler_output)
        texts.append(F.normalize(features[0], dim=0))
    image = F.normalize(plain.get_image_features(images).pooler_output, dim=1)
    expected = F.cross_entropy(plain.logit_scale.exp() * image @ torch.stack(texts).T, labels)
    torch.testing.assert_close(loss, expected)
    (mine,), (theirs,) = torch.autograd.grad(loss, context), torch.autograd.grad(expected, own)
    assert theirs.abs().max() > 1e-4
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", sorted(pairs.MODELS))
def test_it_starts_from_a_text_and_nothing_else_is_trained(folders, name):
    model, tokenizer = adapted(folders / name, context=2, initial="this is")
    before = class_embeddings(
        loaded(folders / name), AutoProcessor.from_pretrained(folders / name).tokenizer, NAMES, ["this is {}"]
    )
    torch.testing.assert_close(class_embeddings(model, tokenizer, NAMES, [model.config.class_prompt]), before)
    assert [one for one, value in model.named_parameters() if value.requires_grad] == [
        one for one, value in model.named_parameters() if value is context_of(model)
    ]
    assert context_of(model).shape == (2, 16)


@pytest.mark.parametrize("name", sorted(pairs.MODELS))
def test_what_is_saved_loads_as_an_adapter_of_peft_alone(folders, name, tmp_path):
    model, tokenizer = adapted(folders / name, seed=4)
    context_of(model).data.add_(1.0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(AutoModel.from_pretrained(folders / name), tmp_path)
    assert type(again.active_peft_config) is TrainableTokensConfig
    assert torch.equal(context_of(again), context_of(model))
    stored = type(tokenizer).from_pretrained(tmp_path)
    prompt = stored.init_kwargs["class_prompt"]
    assert prompt == model.config.class_prompt
    found, expected = (class_embeddings(m, t, NAMES, [prompt]) for m, t in ((again, stored), (model, tokenizer)))
    torch.testing.assert_close(found, expected)
    plain = class_embeddings(loaded(folders / name), stored, NAMES, [prompt])
    assert not torch.allclose(found, plain, atol=1e-3)
    assert stored("this is one")["input_ids"] == pairs.tokenizer()("this is one")["input_ids"]


WRONG = {
    "context": ({"context": 0}, "`context` should be positive"),
    "longer than the tower reads": ({"context": 10}, "`context` should be smaller by 1"),
    "a long start": ({"initial": "a drawing of the number"}, "`initial` has 5 tokens, more than the `context` of 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_keywords(folders, case):
    keywords, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        adapted(folders / "dual_encoder", **keywords)


def test_too_few_free_words(folders):
    model = loaded(folders / "dual_encoder")
    model.text_model.embeddings.word_embeddings.num_embeddings = 8
    with pytest.raises(ValueError, match="`context` should be at most 5"):
        convert(model, context=6)


def test_models_that_it_cannot_change(folders):
    with pytest.raises(ValueError, match="a model with an image and a text tower, got ViTForImageClassification"):
        convert_model(tiny.vit(), {"coop": {}})
    with pytest.raises(ValueError, match="start from a saved `model`"):
        convert(pairs.dual_encoder())
    with pytest.raises(ValueError, match="the classes have no names"):
        convert(AutoModel.from_pretrained(folders / "clip"))
