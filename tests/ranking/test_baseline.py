import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModel,
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    T5Config,
    T5EncoderModel,
    T5Model,
)

from hf_transfer.ranking.baseline import architecture_of, baseline_name, random_model
from tests.ranking.conftest import SMALL


def never(name):
    raise AssertionError(name)


def test_the_name():
    assert baseline_name("a/b") == "random weights of a/b"


def test_models_of_one_architecture_share_its_fingerprint():
    one = BertConfig(**SMALL, num_labels=3, name_or_path="a/b", dtype="float32")
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    other = BertConfig(**SMALL, **names, finetuning_task="mnli", dtype="bfloat16")
    other.architectures, other.problem_type, other.transformers_version = ["BertModel"], "regression", "4.0"
    assert architecture_of(one) == architecture_of(other)
    assert len(architecture_of(one)) == 16 and int(architecture_of(one), 16)
    for change in ({"hidden_size": 32}, {"num_hidden_layers": 3}, {"hidden_act": "relu"}):
        assert architecture_of(BertConfig(**SMALL | change)) != architecture_of(one)


def test_new_weights_of_the_same_shapes(zoo):
    before = torch.random.get_rng_state()
    model, again, other = (random_model(zoo / "bert", never, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    trained = AutoModel.from_pretrained(zoo / "bert").state_dict()
    weights = model.state_dict()
    assert {name: value.shape for name, value in weights.items()} == {name: v.shape for name, v in trained.items()}
    name = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(weights[name], again.state_dict()[name])
    assert not torch.equal(weights[name], other.state_dict()[name])
    assert not torch.equal(weights[name], trained[name])
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}


def test_the_default_seed_is_0(zoo):
    models = random_model(zoo / "vit0", never), random_model(zoo / "vit0", never, seed=0)
    assert torch.equal(*(next(model.parameters()) for model in models))


def test_precision_and_head(zoo):
    model = random_model(zoo / "bert", never, with_head=True, dtype="bfloat16")
    assert type(model).__name__ == "BertForSequenceClassification" and model.dtype == torch.bfloat16
    assert model.classifier.out_features == 3
    with pytest.raises(ValueError, match="without the classification head"):
        random_model(zoo / "mae", never, with_head=True)


def test_of_an_encoder_decoder_with_a_head_both_halves_are_made(tmp_path):
    config = BartConfig(
        vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=20, num_labels=3,
    )  # fmt: skip
    BartForSequenceClassification(config).save_pretrained(tmp_path)
    assert type(random_model(tmp_path, never, with_head=True)) is BartForSequenceClassification
    assert type(random_model(tmp_path, never)).__name__ == "BartEncoder"


def test_a_masked_autoencoder_sees_the_whole_picture(zoo):
    assert AutoConfig.from_pretrained(zoo / "mae").mask_ratio > 0
    assert random_model(zoo / "mae", never).config.mask_ratio == 0.0


def test_of_an_encoder_and_a_decoder_the_encoder_is_read(tmp_path):
    config = T5Config(vocab_size=12, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    encoder = random_model(tmp_path, never)
    names = {name for name, _ in T5EncoderModel(config).encoder.named_parameters()}
    assert {name for name, _ in encoder.named_parameters()} == names
    assert not encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters())


def test_of_an_adapter_the_base_is_drawn(zoo, tmp_path):
    model = get_peft_model(AutoModel.from_pretrained(zoo / "bert"), LoraConfig(target_modules=["query"]))
    model.save_pretrained(tmp_path)
    asked = []

    def fetch(name):
        asked.append(name)
        return zoo / "bert"

    found = random_model(tmp_path, fetch)
    assert asked == [str(zoo / "bert")] and type(found).__name__ == "BertModel"
