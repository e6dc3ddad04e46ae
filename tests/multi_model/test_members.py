import pytest
import torch

from hf_transfer.data.images import image_processor
from hf_transfer.multi_model.members import check_processors, fingerprint_of, load_member
from hf_transfer.training.converters import convert_model
from tests import tiny


@pytest.mark.parametrize("name", ["zoo_tuning", "hub_pathway", "teacher_layers"])
def test_a_checkpoint_that_was_saved_with_another_processor_is_refused(here, tmp_path, name):
    tiny.vit().save_pretrained(tmp_path / "other")
    image_processor(28, num_channels=1).save_pretrained(tmp_path / "other")
    model = load_member("vit", "model")
    check_processors(model, ["flow", "headless"])
    with pytest.raises(ValueError, match="`other` was saved with an image processor of `size`"):
        convert_model(model, {name: {"checkpoints": ["other"]}})


def test_a_fingerprint_depends_on_every_weight_and_name():
    torch.manual_seed(0)
    model = tiny.vit()
    first = fingerprint_of(model)
    assert fingerprint_of(model) == first and first.dtype == torch.long
    with torch.no_grad():
        model.classifier.bias[3] += 1e-6
    assert fingerprint_of(model) != first
    assert fingerprint_of(model.to(torch.bfloat16)) not in (first, fingerprint_of(tiny.resnet()))


def test_a_member_without_a_head_where_one_is_needed_and_one_that_lacks_weights(here, tmp_path):
    assert load_member("headless", "teacher", with_head=False).config.model_type == "vit"
    with pytest.raises(ValueError, match="named by `teacher`, cannot be loaded: It was saved as ViTModel"):
        load_member("headless", "teacher")
    broken = tiny.vit()
    del broken.vit.layernorm.weight
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match="lacks 1 weights of ViTForImageClassification"):
        load_member(str(tmp_path / "broken"), "teacher")
