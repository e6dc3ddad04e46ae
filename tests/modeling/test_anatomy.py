import pytest
import torch
import torch.nn.functional as F
from peft import PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForImageClassification,
    BertModel,
    CLIPConfig,
    CLIPForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    PreTrainedModel,
    PvtConfig,
    PvtModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hf_transfer.modeling.anatomy import (
    HeadInput,
    apply_head,
    backbone_of,
    backbone_parameter_names,
    check_head_is_linear,
    feature_width,
    head_parameter_names,
    head_weight,
    hold_frozen_batch_norms,
    layer_indices,
    linear_heads,
    stacked_layers,
    unwrap_peft,
)
from hf_transfer.tuners.difference import DifferenceConfig
from hf_transfer.tuners.residual import ResidualConfig
from tests import tiny
from tests.models.flowformer.tiny import tiny_config

BUILDERS = {**tiny.TEXT_MODELS, **tiny.IMAGE_MODELS}


def inputs_for(name: str, digits, sentences) -> dict[str, torch.Tensor]:
    batch = tiny.batch_of(sentences if name in tiny.TEXT_MODELS else digits, 6)
    batch.pop("labels")
    return batch


def watch(model, inputs):
    """(features, logits) of one forward."""
    head = HeadInput(model)
    with head:
        logits = model(**inputs).logits
    return head.take(logits, inputs.get("attention_mask")), logits


@pytest.mark.parametrize("name", BUILDERS)
def test_features_are_the_input_of_the_last_linear_layer(name, digits, sentences):
    torch.manual_seed(0)
    model = BUILDERS[name]().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) < 50_000
    features, logits = watch(model, inputs_for(name, digits, sentences))
    last = linear_heads(model)[-1]
    assert features.shape == (6, feature_width(model))
    torch.testing.assert_close(F.linear(features, last.weight, last.bias), logits)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_parameters_are_split_in_backbone_and_head(name):
    model = BUILDERS[name]()
    backbone, head = backbone_parameter_names(model), head_parameter_names(model)
    assert sorted(backbone + head) == sorted(name for name, _ in model.named_parameters())
    assert {name.split(".")[0] for name in backbone} == {model.base_model_prefix}
    assert {name.split(".")[0] for name in head} <= {"classifier", "score"}
    assert head


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_decoder_gives_the_feature_of_its_last_real_token(name, padding_side):
    torch.manual_seed(0)
    model = BUILDERS[name]().eval()
    inputs = tiny.batch_of(tiny.text_rows(padding_side=padding_side), 24)
    inputs.pop("labels")
    features, _ = watch(model, inputs)
    hidden = backbone_of(model)(**inputs).last_hidden_state
    last = [max(place for place, real in enumerate(row) if real) for row in inputs["attention_mask"].tolist()]
    torch.testing.assert_close(features, torch.stack([hidden[row, place] for row, place in enumerate(last)]))


def test_equal_head_outputs_of_several_tokens_do_not_confuse_the_token(sentences):
    """In low precision many tokens get the very same score; a head that is all zeros is the extreme of it."""
    torch.manual_seed(0)
    model = tiny.gpt2().eval()
    torch.nn.init.zeros_(model.score.weight)
    inputs = tiny.batch_of(sentences, 24)
    inputs.pop("labels")
    features, _ = watch(model, inputs)
    hidden = backbone_of(model)(**inputs).last_hidden_state
    last = inputs["attention_mask"].sum(dim=1) - 1
    torch.testing.assert_close(features, hidden[torch.arange(24), last])


@pytest.mark.parametrize("name, head", [("bert", "classifier"), ("gpt2", "score"), ("llama", "score")])
def test_lora_with_a_trained_copy_of_the_head(name, head, sentences):
    torch.manual_seed(0)
    model = tiny.with_lora(BUILDERS[name](), head).eval()
    trained = getattr(unwrap_peft(model), head).modules_to_save["default"]
    torch.nn.init.normal_(trained.weight)
    features, logits = watch(model, inputs_for(name, None, sentences))
    torch.testing.assert_close(F.linear(features, trained.weight, trained.bias), logits)
    assert all("lora_" in name for name in backbone_parameter_names(model))
    assert all(head in name for name in head_parameter_names(model))


def test_lora_on_the_head_itself(sentences):
    torch.manual_seed(0)
    model = tiny.with_lora(tiny.bert(), target_modules=["query", "classifier"], modules_to_save=None).eval()
    head = unwrap_peft(model).classifier
    torch.nn.init.normal_(head.lora_B["default"].weight)
    features, logits = watch(model, inputs_for("bert", None, sentences))
    assert features.shape == (6, feature_width(model)) == (6, 16)
    torch.testing.assert_close(head(features), logits)


def with_adapted_head(kind: str):
    """A tiny BERT whose head carries an adapter that has moved."""
    torch.manual_seed(0)
    model = tiny.bert(num_labels=3)
    if kind == "saved, the second of two active":
        model = tiny.with_lora(model)
        model.add_adapter("other", model.peft_config["default"])
        model.set_adapter("other")
    elif kind == "saved, switched off":
        model = tiny.with_lora(model)
        model.base_model.disable_adapter_layers()
    elif kind == "difference":
        config = DifferenceConfig(target_modules=["classifier"], bias_only=True, modules_to_save=None)
        model = get_peft_model(model, config)
    elif kind != "plain":
        changes = {"use_dora": True} if kind == "dora" else {}
        model = tiny.with_lora(model, target_modules=["query", "classifier"], modules_to_save=None, **changes)
    for name, parameter in model.named_parameters():
        if "classifier" in name:
            torch.nn.init.normal_(parameter)
    return model.eval()


ADAPTED_HEADS = ["plain", "lora", "dora", "difference", "saved, the second of two active", "saved, switched off"]


@pytest.mark.parametrize("kind", ADAPTED_HEADS)
def test_the_head_in_use_is_called_with_its_adapters(kind, sentences):
    model = with_adapted_head(kind)
    features, logits = watch(model, inputs_for("bert", None, sentences))
    torch.testing.assert_close(apply_head(model, features), logits)
    weight, bias = head_weight(model)
    torch.testing.assert_close(features @ weight.T + bias, logits)
    check_head_is_linear(model, "this test")


def test_a_detached_head_gives_gradients_to_the_features_alone(sentences):
    model = with_adapted_head("lora")
    features = torch.randn(2, 16, requires_grad=True)
    apply_head(model, features, detached=True).square().sum().backward()
    assert features.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_head_in_low_precision_reads_float32_features():
    model = tiny.bert(num_labels=3).bfloat16()
    assert apply_head(model, torch.randn(2, 16)).dtype == torch.float32


def test_weights_of_a_nonlinear_head_are_refused():
    model = get_peft_model(tiny.bert(), ResidualConfig(r=4, target_modules=["classifier"]))
    with pytest.raises(ValueError, match="the adapter on it is not linear"):
        check_head_is_linear(model, "This test")


@pytest.mark.parametrize("name, head", [("bert", "classifier"), ("gpt2", "score")])
def test_prompt_tuning(name, head, sentences):
    torch.manual_seed(0)
    model = get_peft_model(BUILDERS[name](), PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)).eval()
    features, logits = watch(model, inputs_for(name, None, sentences))
    torch.testing.assert_close(getattr(unwrap_peft(model), head).modules_to_save["default"](features), logits)


def test_a_head_of_two_layers_gives_the_input_of_the_second(sentences):
    torch.manual_seed(0)
    sizes = {"hidden_size": 3, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=200, max_position_embeddings=40, pad_token_id=0, num_labels=3, **sizes)
    model = RobertaForSequenceClassification(config).eval()  # hidden_size == num_labels: both layers fit the shape
    features, logits = watch(model, inputs_for("bert", None, sentences))
    torch.testing.assert_close(model.classifier.out_proj(features), logits)


def test_a_backbone_that_has_another_name_than_the_models_prefix(digits):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision = {**sizes, "image_size": 14, "patch_size": 7, "num_channels": 1}
    text = {**sizes, "vocab_size": 20}
    model = CLIPForImageClassification(CLIPConfig(text_config=text, vision_config=vision, num_labels=10)).eval()
    assert backbone_of(model) is model.vision_model
    features, logits = watch(model, inputs_for("vit", digits, None))
    torch.testing.assert_close(model.classifier(features), logits)


def test_a_backbone_alone_is_refused_with_what_to_load():
    backbone = BertModel(tiny.bert().config)
    with pytest.raises(ValueError, match="BertModel has no head: it is a backbone alone"):
        linear_heads(backbone)


def test_a_head_of_another_width_is_refused():
    model = tiny.bert(num_labels=3)
    model.classifier = torch.nn.Linear(16, 5)
    with pytest.raises(ValueError, match="BertForSequenceClassification has no linear head with num_labels=3 outputs"):
        HeadInput(model)


def test_logits_that_are_no_output_of_one_head_are_refused(digits):
    """A model that averages two heads has no single feature vector."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = DeiTConfig(image_size=14, patch_size=7, num_channels=1, num_labels=10, **sizes)
    model = DeiTForImageClassificationWithTeacher(config).eval()
    with pytest.raises(ValueError, match="logits are not the output of one linear head"):
        watch(model, inputs_for("vit", digits, None))


def test_what_is_no_hugging_face_model_is_refused():
    with pytest.raises(TypeError, match="should be a Hugging Face PreTrainedModel or a PeftModel, got Linear"):
        unwrap_peft(torch.nn.Linear(2, 2))


def test_the_head_has_to_run_before_its_input_is_taken():
    head = HeadInput(tiny.bert())
    with pytest.raises(RuntimeError, match="did not run in the last forward pass"):
        head.take(torch.zeros(1, 3))


def test_nothing_is_watched_outside_the_block(sentences):
    model = tiny.bert()
    head = HeadInput(model)
    with head:
        model(**inputs_for("bert", None, sentences))
        assert len(model.classifier._forward_hooks) == 1
    with pytest.raises(ZeroDivisionError), head:
        assert model(**inputs_for("bert", None, sentences)).logits.sum() / 0 and 1 / 0
    assert not model.classifier._forward_hooks
    logits = model(**inputs_for("bert", None, sentences)).logits
    with pytest.raises(RuntimeError, match="did not run"):
        head.take(logits)


def test_every_model_in_the_list_is_a_hugging_face_model():
    assert all(isinstance(build(), PreTrainedModel) for build in BUILDERS.values())


def test_the_operations_of_a_stem_are_no_layers():
    model = AutoModelForImageClassification.from_config(
        tiny_config("image", stem="conv", image_size=16, patch_size=8, num_hidden_layers=1)
    )
    assert stacked_layers(model.base_model) == list(model.base_model.layers)
    indices = layer_indices(model)
    assert {indices[name] for name in indices if "embeddings" in name} == {2}


def test_lists_of_layers_within_a_list_are_read_through():
    with torch.device("meta"):
        model = PvtModel(PvtConfig(depths=[1, 2, 1, 1]))
    layers = stacked_layers(model)
    assert [type(layer).__name__ for layer in layers] == ["PvtLayer"] * 5
    assert sorted({*layer_indices(model).values()}) == [1, 2, 3, 4, 5, 6]


def test_batch_norms_rest_where_an_adapter_trains_their_biases_alone():
    model = torch.nn.Sequential(*(torch.nn.BatchNorm1d(2) for _ in range(3))).requires_grad_(False).train()
    model[1].bias.requires_grad_(True)
    model[2].requires_grad_(True)
    hold_frozen_batch_norms(model)
    assert [norm.training for norm in model] == [False, False, True]
