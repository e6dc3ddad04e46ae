import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

from hf_transfer.models.lenet import LeNetConfig, LeNetForImageClassification

SMALL = {"image_size": 16, "channels": [3, 4], "hidden_size": 6}


def test_the_layers_are_those_of_the_docstring():
    torch.manual_seed(0)
    model = LeNetForImageClassification(LeNetConfig(**SMALL, num_channels=3, num_labels=5)).eval()
    pixels = torch.randn(2, 3, 16, 16)
    first, second, wide = model.lenet.layers
    maps = F.relu(F.max_pool2d(F.conv2d(pixels, first.conv.weight, first.conv.bias), 2))
    maps = F.relu(F.max_pool2d(F.conv2d(maps, second.conv.weight, second.conv.bias), 2))
    features = F.relu(F.linear(maps.reshape(2, -1), wide.weight, wide.bias))
    expected = F.linear(features, model.classifier.weight, model.classifier.bias)
    output = model(pixels, labels=torch.tensor([1, 4]))
    torch.testing.assert_close(output.logits, expected)
    torch.testing.assert_close(output.loss, F.cross_entropy(expected, torch.tensor([1, 4])))


def test_the_usual_size_and_the_auto_classes(tmp_path):
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model("lenet", num_labels=10))
    assert model.lenet.layers[2].weight.shape == (500, 50 * 4 * 4) and model.config.map_size == 4
    model.save_pretrained(tmp_path)
    pixels = torch.randn(2, 1, 28, 28)
    read = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(read(pixels).logits, model.eval()(pixels).logits)
    assert torch.equal(AutoModel.from_pretrained(tmp_path).layers[0].conv.weight, model.lenet.layers[0].conv.weight)


def test_dropout_works_in_training_alone():
    model = LeNetForImageClassification(LeNetConfig(**SMALL, num_labels=3))
    pixels = torch.randn(2, 1, 16, 16)
    assert not torch.equal(model.train()(pixels).logits, model(pixels).logits)
    assert torch.equal(model.eval()(pixels).logits, model(pixels).logits)


@pytest.mark.parametrize(
    "sizes, message", [({"image_size": 12}, "at least 16"), ({"channels": [3]}, "two convolutions")]
)
def test_sizes_that_cannot_be(sizes, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        LeNetConfig(**sizes)
