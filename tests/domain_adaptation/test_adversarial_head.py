import torch

from hf_transfer.domain_adaptation.adversarial_head import AdversarialHead


def test_it_is_a_perceptron_with_one_hidden_layer():
    head = AdversarialHead(5, 8, 3, dropout=0.5).eval()
    features = torch.randn(4, 5)
    first, last = head[0], head[-1]
    expected = torch.relu(features @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(head(features), expected)
