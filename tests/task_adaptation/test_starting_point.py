import torch

from hf_transfer.task_adaptation.starting_point import StartingPoint


def test_it_keeps_the_start_while_the_model_moves():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    before = model[0].weight.detach().clone()
    start = StartingPoint(model, ["0.weight"])
    with torch.no_grad():
        model[0].weight.add_(1.0)
    [(name, parameter, value)] = start.pairs(model)
    assert name == "0.weight" and parameter is model[0].weight
    torch.testing.assert_close(value, before)
    assert not value.requires_grad


def test_a_checkpoint_restores_it():
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    start, resumed = StartingPoint(first, ["weight"]), StartingPoint(second, ["weight"])
    resumed.load_state_dict(start.state_dict())
    [(_, _, value)] = resumed.pairs(second)
    torch.testing.assert_close(value, first.weight.detach())
