import copy

import torch

from hf_transfer.functional.ema import ema_update


def test_parameters_are_averaged_and_buffers_copied():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = copy.deepcopy(model)
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    model(torch.randn(4, 2))
    ema_update(average, model, momentum=0.9)
    for mean, start, value in zip(average.parameters(), before, model.parameters()):
        torch.testing.assert_close(mean, 0.9 * start + 0.1 * value)
    torch.testing.assert_close(average[1].running_mean, model[1].running_mean)
