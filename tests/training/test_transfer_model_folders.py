"""What a TransferModel writes and reads again."""

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForImageClassification,
    BartConfig,
    BartForSequenceClassification,
)

from hf_transfer.domain_adaptation.cdan import CDAN
from hf_transfer.domain_adaptation.dann import DANN
from hf_transfer.domain_adaptation.mcc import MCC
from hf_transfer.task_adaptation.l2_sp import L2SP
from hf_transfer.training.transfer_model import OBJECTIVES_FILE, TransferModel, make_objectives
from tests import tiny
from tests.training.test_transfer_model import Probe
from tests.training.test_transfer_model import two_domain_batch as two_domain_batch


def test_the_folder_is_an_ordinary_one_and_comes_back(tmp_path, two_domain_batch):
    torch.manual_seed(0)
    spec = {"cdan": {"hidden_size": 8}, "l2_sp": {}}
    model = TransferModel(tiny.vit(), make_objectives(spec))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(**two_domain_batch)  # moves the discriminator's running statistics
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    pixels = two_domain_batch["pixel_values"]
    assert torch.equal(loaded(pixels).logits, model.model.eval()(pixels).logits)
    other = TransferModel(tiny.vit(), make_objectives(spec))
    other.load_weights(tmp_path)
    state = model.state_dict()
    assert other.state_dict().keys() == state.keys()
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_no_objectives_file_without_objective_state(tmp_path):
    TransferModel(tiny.vit(), {"mcc": MCC()}).save_pretrained(tmp_path)
    assert not (tmp_path / OBJECTIVES_FILE).exists()


def test_a_folder_saved_without_the_objectives_is_refused(tmp_path):
    TransferModel(tiny.vit()).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"has no {OBJECTIVES_FILE}: it was saved without these objectives"):
        TransferModel(tiny.vit(), {"dann": DANN(hidden_size=8)}).load_weights(tmp_path)


def test_a_folder_saved_with_other_objectives_is_refused(tmp_path):
    TransferModel(tiny.vit(), {"cdan": CDAN(hidden_size=8)}).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="resume with the objectives of the first run"):
        TransferModel(tiny.vit(), {"dann": DANN(hidden_size=8)}).load_weights(tmp_path)


def test_weights_are_read_in_the_precision_of_the_model(tmp_path):
    """A model that was loaded in bfloat16 and made float32 still says bfloat16 in its config."""
    model = tiny.vit()
    TransferModel(model).save_pretrained(tmp_path)
    other = tiny.vit()
    other.config.dtype = torch.bfloat16
    TransferModel(other).load_weights(tmp_path)
    assert torch.equal(other.classifier.weight, model.classifier.weight)
    assert other.classifier.weight.dtype == torch.float32


def test_a_teacher_with_tied_weights_is_saved(tmp_path):
    config = BartConfig(
        vocab_size=50,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        max_position_embeddings=16,
        num_labels=3,
    )
    model = TransferModel(BartForSequenceClassification(config), {"one": Probe("teacher")})
    model.save_pretrained(tmp_path)
    other = TransferModel(BartForSequenceClassification(config), {"one": Probe("teacher")})
    other.load_weights(tmp_path)
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(other.teacher.state_dict()[name], value), name


@pytest.mark.parametrize("adapter_name", ["default", "digits"])
def test_a_peft_model_is_an_adapter_folder_and_comes_back(tmp_path, two_domain_batch, adapter_name):
    torch.manual_seed(0)
    base = tiny.vit()
    base.save_pretrained(tmp_path / "base")

    def adapted():
        inner = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
        peft_model = tiny.with_lora(inner, adapter_name=adapter_name)
        return TransferModel(peft_model, {"dann": DANN(hidden_size=8), "l2_sp": L2SP()})

    model = adapted()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "saved")
    other = adapted()
    other.load_weights(tmp_path / "saved")
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    folder = tmp_path / "saved" if adapter_name == "default" else tmp_path / "saved" / adapter_name
    fresh = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(fresh, folder).eval()
    pixels = two_domain_batch["pixel_values"]
    torch.testing.assert_close(loaded(pixel_values=pixels).logits, model.model.eval()(pixel_values=pixels).logits)


def test_frozen_batch_norms_under_an_adapter_keep_their_statistics(tmp_path, digits):
    """An adapter's folder holds no running statistics: had they moved, the folder would be another model."""
    torch.manual_seed(0)
    tiny.resnet().save_pretrained(tmp_path / "base")
    base = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    model = TransferModel(tiny.with_lora(base, head="classifier.1", target_modules=["convolution"])).train()
    batch = tiny.batch_of(digits, 8)
    model(**batch)
    model.save_pretrained(tmp_path / "saved")
    fresh = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(fresh, tmp_path / "saved").eval()
    pixels = batch["pixel_values"]
    torch.testing.assert_close(loaded(pixel_values=pixels).logits, model.eval().model(pixel_values=pixels).logits)


def test_trained_batch_norms_under_an_adapter_travel_with_it(tmp_path, digits):
    torch.manual_seed(0)
    start = tiny.resnet().state_dict()

    def adapted():
        inner = tiny.resnet()
        inner.load_state_dict(start)
        config = {"target_modules": ["convolution"], "modules_to_save": ["classifier.1", "normalization"]}
        return TransferModel(tiny.with_lora(inner, **config))

    model = adapted().train()
    model(**tiny.batch_of(digits, 8))
    model.save_pretrained(tmp_path)
    other = adapted()
    other.load_weights(tmp_path)
    moved = [name for name in model.state_dict() if "modules_to_save" in name and name.endswith("running_mean")]
    assert moved and all(model.state_dict()[name].abs().max() > 0 for name in moved)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
