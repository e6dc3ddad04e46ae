from hf_transfer.domain_adaptation.parameter_groups import encoder_parameters, head_parameters
from tests import tiny


def names_of(model, parameters) -> set[str]:
    chosen = {id(parameter) for parameter in parameters}
    return {name for name, parameter in model.named_parameters() if id(parameter) in chosen}


def test_head_and_encoder_share_the_model_between_them():
    model = tiny.vit()
    head, encoder = names_of(model, head_parameters(model)), names_of(model, encoder_parameters(model))
    assert head == {"classifier.weight", "classifier.bias"}
    assert not head & encoder and head | encoder == {name for name, _ in model.named_parameters()}


def test_with_an_adapter_the_trained_copy_of_the_head_counts():
    model = tiny.with_lora(tiny.vit())
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    head = names_of(model, head_parameters(model)) & trainable
    encoder = names_of(model, encoder_parameters(model)) & trainable
    assert head and all("classifier" in name for name in head)
    assert encoder and all("lora" in name for name in encoder)
