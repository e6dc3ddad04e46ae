import pytest
import torch

from hf_transfer.data.images import image_processor
from hf_transfer.multi_model import load_members, merge_ties, uniform_soup
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


LOADS = {
    "zoo_tuning": lambda folder: convert_model(tiny.vit(), {"zoo_tuning": {"checkpoints": [folder]}}),
    "hub_pathway": lambda folder: convert_model(tiny.vit(), {"hub_pathway": {"checkpoints": [folder]}}),
    "teacher_layers": lambda folder: convert_model(tiny.vit(), {"teacher_layers": {"checkpoints": [folder]}}),
    "soup": lambda folder: uniform_soup([folder]),
    "ties": lambda folder: merge_ties([tiny.vit()], folder),
    "members": lambda folder: load_members([folder]),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> dict[str, str]:
    """Folders that cannot be used: cut off, without numbers, without weights, and an adapter alone."""
    root = tmp_path_factory.mktemp("broken")
    for name in ("truncated", "missing"):
        tiny.vit().save_pretrained(root / name)
    weights = root / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    (root / "missing" / "model.safetensors").unlink()
    model = tiny.vit()
    torch.nn.init.constant_(model.vit.layernorm.bias, float("nan"))
    model.save_pretrained(root / "not_finite")
    tiny.with_lora(tiny.vit()).save_pretrained(root / "adapter")
    return {path.name: str(path) for path in root.iterdir()}


MESSAGES = {
    "truncated": "cannot be loaded: .*deserializing header",
    "missing": "cannot be loaded: .*no file named model.safetensors",
    "not_finite": "cannot be loaded: its tensor `vit.layernorm.bias` holds values that are not finite",
    "adapter": "is an adapter alone: merge it into its base",
}


@pytest.mark.parametrize("method", LOADS)
@pytest.mark.parametrize("fault", MESSAGES)
def test_a_folder_that_cannot_be_used_is_named(broken, method, fault):
    with pytest.raises(ValueError, match=f"{fault}`, named by `.*{MESSAGES[fault]}"):
        LOADS[method](broken[fault])
