import pytest
import torch

from hf_transfer.task_adaptation.first_pass import all_differentiable, evaluating, labelled_batches, model_inputs


def test_only_labelled_rows_and_model_inputs_are_read():
    batches = [
        {
            "x": torch.arange(3),
            "view_x": torch.arange(3),
            "domain": torch.tensor([0, 1, 0]),
            "labels": torch.tensor([2, -100, 1]),
        },
        {"x": torch.arange(2), "labels": torch.tensor([-100, -100])},
    ]
    [(inputs, labels)] = labelled_batches(batches, torch.device("cpu"))
    assert inputs.keys() == {"x"} and inputs["x"].tolist() == [0, 2] and labels.tolist() == [2, 1]
    assert model_inputs(batches[0]).keys() == {"x"}


def test_a_batch_without_labels_raises():
    with pytest.raises(ValueError, match="labelled data"):
        next(labelled_batches([{"x": torch.arange(2)}], torch.device("cpu")))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_even_after_an_error(training):
    model = torch.nn.Linear(1, 1).train(training)
    with pytest.raises(KeyError), evaluating(model):
        assert not model.training
        raise KeyError
    assert model.training is training


def test_frozen_parameters_are_frozen_again():
    model = torch.nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    with all_differentiable(model):
        assert model.bias.requires_grad
    assert model.weight.requires_grad and not model.bias.requires_grad
