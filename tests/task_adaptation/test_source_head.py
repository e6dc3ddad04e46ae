import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_transfer.task_adaptation.source_head import copy_source_head


def test_a_module_is_copied():
    head = torch.nn.Linear(8, 5).requires_grad_(False)
    copied = copy_source_head(head, 8)
    torch.testing.assert_close(copied.weight, head.weight)
    assert copied is not head and copied.weight.requires_grad


def test_a_folder_gives_its_head(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    copied = copy_source_head(str(tmp_path), 8)
    torch.testing.assert_close(copied.weight, tiny_model.classifier.weight)


def test_bad_input_raises(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="features of width 8"):
        copy_source_head(torch.nn.Linear(9, 5), 8)
    tiny_model.bert.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="without the classification head"):
        copy_source_head(str(tmp_path), 8)


def test_a_folder_that_lacks_weights_is_refused(tiny_model, tmp_path):
    """transformers would draw them at random."""
    tiny_model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("classifier.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of .* \(such as classifier.weight\)"):
        copy_source_head(str(tmp_path), 8)
