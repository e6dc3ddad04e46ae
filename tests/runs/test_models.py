import json
import logging
import shutil

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import Conv2d as LoraConv2d
from transformers import (
    BertTokenizerFast,
    CLIPConfig,
    CLIPForImageClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from hf_transfer.hub import complete_adapter
from hf_transfer.models.heatmap_keypoints import HeatmapKeypointsConfig, HeatmapKeypointsForKeypointDetection
from hf_transfer.runs.arguments import ModelArguments
from hf_transfer.runs.models import head_names, load_model, load_processor, new_config, with_adapter
from hf_transfer.tasks import task_named
from tests import tiny
from tests.runs.folders import ARCHITECTURE, causal_lm, save_image_model, save_text_model

CLASSES = [str(digit) for digit in range(10)]
LORA = {"peft_type": "LORA", "r": 2}


def text_arguments(folder) -> ModelArguments:
    return ModelArguments(model=str(folder), task="text-classification")


def test_a_stored_head_is_kept_and_learns_the_names(here):
    model = load_model(ModelArguments(model="vit"), CLASSES)
    assert model.config.id2label == dict(enumerate(CLASSES))
    stored = load_model(ModelArguments(model="vit"))
    assert model.classifier.weight.equal(stored.classifier.weight)
    assert stored.config.id2label[0] == "LABEL_0"


def test_a_stored_head_follows_the_order_of_the_datas_classes(here, caplog):
    """The same names in another order: output by output the old classes would be confused."""
    load_model(ModelArguments(model="vit"), CLASSES).save_pretrained("named")
    stored = load_model(ModelArguments(model="named"))
    backwards = load_model(ModelArguments(model="named"), CLASSES[::-1])
    assert backwards.config.id2label[0] == "9"
    assert backwards.classifier.weight.equal(stored.classifier.weight.flip(0))
    assert backwards.classifier.bias.equal(stored.classifier.bias.flip(0))
    assert "the head of named has the classes of the data in another order" in caplog.text


def test_a_stored_adapters_head_follows_the_order_too(here):
    lora = {**LORA, "target_modules": "all-linear"}
    adapted = with_adapter(load_model(ModelArguments(model="vit"), CLASSES), lora)
    adapted.save_pretrained("adapter")
    complete_adapter("adapter", adapted.config)
    size = adapted.config.image_size
    pixels = torch.randn(2, adapted.config.num_channels, size, size)
    with torch.no_grad():
        expected = adapted.eval()(pixels).logits
        found = load_model(ModelArguments(model="adapter"), CLASSES[::-1]).eval()(pixels).logits
    torch.testing.assert_close(found, expected.flip(1))


def test_a_head_of_other_classes_of_the_same_number_is_told(here, caplog):
    load_model(ModelArguments(model="vit"), CLASSES).save_pretrained("named")
    letters = load_model(ModelArguments(model="named"), list("abcdefghij"))
    assert letters.classifier.weight.equal(load_model(ModelArguments(model="named")).classifier.weight)
    assert "named has a head of other classes (0, 1, 2, 3, 4, ...)" in caplog.text


def test_a_head_of_other_classes_is_new(here):
    model = load_model(ModelArguments(model="three"), CLASSES)
    assert model.classifier.out_features == 10
    assert model.vit.embeddings.cls_token.equal(load_model(ModelArguments(model="three")).vit.embeddings.cls_token)


def test_an_architecture_starts_from_random_weights():
    model = load_model(ModelArguments(architecture=dict(ARCHITECTURE)), CLASSES)
    assert (model.config.hidden_size, model.config.num_labels) == (16, 10)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"hidden_size": 16}, "should name a `model_type` of transformers, got None"),
        ({"model_type": "flowforme"}, r"got 'flowforme'; close: \['flowformer'"),
        ({"model_type": "flowformer", "hiden_size": 16}, r"FlowformerConfig has no \['hiden_size'\]"),
        ({"model_type": "flowformer", "hidden_size": "many"}, "`architecture`: .*expected int, got str"),
        ({"model_type": "vit", "hidden_size": "many"}, "`architecture`: .*expected int, got str"),
        (
            {"model_type": "vit", "image_size": 28, "patch_size": 5},
            "`patch_size`, got 28 and 5: 25 and 30",
        ),
        ({"model_type": "swin", "image_size": 30}, "multiple of `patch_size`, got 30 and 4: 28 and 32 are"),
    ],
)
def test_an_architecture_with_a_mistake_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        new_config(settings)


def test_every_name_a_configuration_knows_is_accepted():
    names = {"n_embd": 16, "n_layer": 1, "n_head": 2, "num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}}
    config = new_config({"model_type": "gpt2", **names, "hidden_size": 16, "label2id": {"a": 0, "b": 1, "c": 2}})
    assert (config.n_embd, config.num_labels) == (16, 3)


def test_a_headless_folder_is_refused_where_weights_are_needed(here):
    assert load_model(ModelArguments(model="headless"), CLASSES).classifier.out_features == 10
    with pytest.raises(ValueError, match=r"`headless` lacks weights for image-classification \(\['classifier\.bias'"):
        load_model(ModelArguments(model="headless"), allow_new_weights=False)


def test_a_folder_that_is_not_a_model(here):
    with pytest.raises(ValueError, match="cannot load `digits` for image-classification: Unrecognized model"):
        load_model(ModelArguments(model="digits"))
    with pytest.raises(ValueError, match="cannot load `nowhere` for image-classification"):
        load_model(ModelArguments(model="nowhere"))


def test_a_model_of_another_kind(here):
    with pytest.raises(ValueError, match="cannot load `bert` for image-classification"):
        load_model(ModelArguments(model="bert"))


@pytest.mark.parametrize("damage", ["weights", "configuration", "value"])
def test_a_damaged_model_is_named(here, damage):
    folder = shutil.copytree("flow", "damaged")
    if damage == "weights":
        whole = (here / "damaged" / "model.safetensors").read_bytes()
        (here / "damaged" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    else:
        config = json.loads((here / "damaged" / "config.json").read_text())
        text = json.dumps({**config, "hidden_size": "many"}) if damage == "value" else "{"
        (here / "damaged" / "config.json").write_text(text)
    with pytest.raises(ValueError, match="cannot load `damaged` for image-classification"):
        load_model(ModelArguments(model=folder))


def test_an_unknown_task():
    with pytest.raises(ValueError, match=r"unknown task `segmentation`, accepted: .*'fill-mask'"):
        task_named("segmentation")


@pytest.mark.parametrize("model", ["vit", "flow"])
def test_an_adapter_leaves_the_head_trainable(here, model):
    adapted = load_model(ModelArguments(model=model, peft={**LORA, "target_modules": "all-linear"}), CLASSES)
    assert isinstance(adapted, PeftModel)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("modules_to_save" in name and "classifier" in name for name in trained)
    assert any("lora_A" in name for name in trained)
    assert not any(parameter.requires_grad for name, parameter in adapted.named_parameters() if "patch_emb" in name)


def test_the_modules_a_user_names_are_kept():
    adapted = with_adapter(tiny.vit(), {**LORA, "target_modules": ["q_proj"], "modules_to_save": ["classifier"]})
    assert adapted.peft_config["default"].modules_to_save == ["classifier"]


def test_heads_by_name():
    assert head_names(tiny.bert()) == ["classifier"]
    assert head_names(tiny.gpt2()) == ["score"]
    assert head_names(causal_lm()) == []


def test_new_layers_before_a_classifier_are_trained_and_saved_with_an_adapter(tmp_path):
    """They begin at random, as the classifier does."""
    sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "vocab_size": 30, "num_labels": 3}
    model = DistilBertForSequenceClassification(DistilBertConfig(**sizes))
    assert head_names(model) == ["pre_classifier", "classifier"]
    adapted = with_adapter(model, {**LORA, "target_modules": ["q_lin"]})
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("pre_classifier" in name for name in trained)
    backbone = {"model_type": "resnet", "hidden_sizes": [8], "depths": [1], "embedding_size": 8}
    points = HeatmapKeypointsConfig(backbone_config=backbone, hidden_size=8, num_labels=5)
    assert head_names(HeatmapKeypointsForKeypointDetection(points)) == ["upsampling", "head"]


@pytest.mark.parametrize("make", [tiny.resnet, tiny.efficientnet])
def test_all_linear_names_the_convolutions_of_a_model_that_has_nothing_linear(tmp_path, make, caplog):
    torch.manual_seed(0)
    adapted = with_adapter(make(), {**LORA, "target_modules": "all-linear"})
    count = sum(isinstance(module, LoraConv2d) for module in adapted.modules())
    assert f"has no linear layer outside its head; its {count} convolutions are adapted" in caplog.text
    images, labels = torch.randn(8, adapted.config.num_channels, 32, 32), torch.arange(8)
    optimizer = torch.optim.Adam([one for one in adapted.parameters() if one.requires_grad], lr=1e-2)
    losses = []
    for _ in range(10):
        loss = adapted(pixel_values=images, labels=labels).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    adapted.save_pretrained(tmp_path)
    torch.manual_seed(0)
    found = PeftModel.from_pretrained(make(), tmp_path).eval()
    expected = adapted.eval()(pixel_values=images).logits
    for other, own in zip(found.buffers(), adapted.buffers()):
        other.copy_(own)  # statistics of batch norms are the base model's
    torch.testing.assert_close(found(pixel_values=images).logits, expected)


def test_all_linear_of_a_model_with_nothing_to_adapt():
    model = tiny.resnet()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.groups = 2  # as depthwise ones have several
    with pytest.raises(ValueError, match="`target_modules: all-linear` finds nothing in a ResNetFor"):
        with_adapter(model, {**LORA, "target_modules": "ALL-LINEAR"})


@pytest.mark.parametrize("settings", [{"r": 2}, {"peft_type": "LORE"}, {**LORA, "rank": 2}])
def test_a_wrong_adapter_is_named(settings):
    with pytest.raises(ValueError, match=r"`peft` should name a `peft_type` of \['ADALORA'.*'LORA'.*and its keywords"):
        with_adapter(tiny.vit(), settings)


def test_modules_that_the_model_lacks():
    with pytest.raises(ValueError, match="check your `target_modules`"):
        with_adapter(tiny.vit(), {**LORA, "target_modules": ["nowhere"]})


def test_the_stored_processor_is_read(here):
    assert load_processor(ModelArguments(model="vit"), tiny.vit().config).size["height"] == 14
    assert len(load_processor(text_arguments("bert"), tiny.bert().config)) == len(tiny.tokenizer())


def test_images_have_a_plain_processor_where_none_is_stored(tmp_path):
    tiny.vit().save_pretrained(tmp_path)
    processor = load_processor(ModelArguments(model=str(tmp_path)), tiny.vit().config)
    assert (processor.size["height"], tuple(processor.image_mean)) == (14, (0.5,))
    built = load_processor(ModelArguments(architecture=dict(ARCHITECTURE)), new_config(dict(ARCHITECTURE)))
    assert built.size["width"] == 14


def test_text_without_a_tokenizer_has_none(tmp_path):
    # transformers would make one up in which every word is unknown.
    tiny.bert().save_pretrained(tmp_path)
    assert load_processor(text_arguments(tmp_path), tiny.bert().config) is None


def test_the_processor_is_the_one_of_the_task(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 60}
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 14, "patch_size": 7}, projection_dim=8)
    save_text_model(tmp_path, CLIPForImageClassification(config))
    save_image_model(tmp_path, CLIPForImageClassification(config))
    assert hasattr(load_processor(ModelArguments(model=str(tmp_path)), config), "image_mean")
    assert hasattr(load_processor(text_arguments(tmp_path), config), "pad_token")


def test_a_tokenizer_without_padding_pads_with_the_end_of_the_text(tmp_path):
    model = tiny.gpt2()
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path)
    words = {word: place for place, word in enumerate(["[UNK]", "<end>", "what", "do", "you", "see"])}
    plain = BertTokenizerFast(vocab=words, unk_token="[UNK]", pad_token=None, eos_token="<end>")
    plain.save_pretrained(tmp_path)
    tokenizer = load_processor(text_arguments(tmp_path), model.config)
    assert tokenizer.pad_token == "<end>"
    assert model.config.pad_token_id == tokenizer.pad_token_id


def test_new_weights_are_one_line_and_no_report(here, caplog):
    for name in ("transformers", "hf_transfer.runs.models"):
        logging.getLogger(name).addHandler(caplog.handler)
    try:
        load_model(ModelArguments(model="three"), CLASSES)
    finally:
        for name in ("transformers", "hf_transfer.runs.models"):
            logging.getLogger(name).removeHandler(caplog.handler)
    told = [record.getMessage() for record in caplog.records]
    assert not [line for line in told if "LOAD REPORT" in line]
    assert [line for line in told if "three has no fitting weights for classifier.bias, classifier.weight" in line]
