import torch

from hf_transfer.task_adaptation.starting_point import NamedTensors, named_parameters


def test_it_keeps_the_start_while_the_model_moves():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    before = model[0].weight.detach().clone()
    start = NamedTensors(named_parameters(model, ["0.weight"]))
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert start.names == ["0.weight"]
    torch.testing.assert_close(start["0.weight"], before)
    assert named_parameters(model, ["0.weight"])["0.weight"] is model[0].weight
    assert not start["0.weight"].requires_grad


def test_a_checkpoint_restores_it():
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    start, resumed = (NamedTensors(dict(model.named_parameters())) for model in (first, second))
    resumed.load_state_dict(start.state_dict())
    torch.testing.assert_close(resumed["weight"], first.weight.detach())
