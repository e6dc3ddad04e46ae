import pytest
import torch

from hf_transfer.evaluation.few_shot import FewShotSettings, evaluate_episodes, evaluate_few_shot, right_answers
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny


def blobs(gap: float, classes=6, rows=20):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(rows)
    centres = gap * torch.randn(classes, 8, generator=generator)
    return centres[labels] + torch.randn(classes * rows, 8, generator=generator), labels


@pytest.mark.parametrize("method", ["prototypical", "matching"])
def test_chance_and_certainty(method):
    settings = FewShotSettings(ways=4, shots=2, queries=5, episodes=200, method=method)
    far, near = evaluate_episodes(*blobs(30.0), settings), evaluate_episodes(*blobs(0.0), settings)
    assert far["accuracy"] == 1.0 and far["interval"] == 0.0
    assert abs(near["accuracy"] - 0.25) < 3 * near["interval"] + 0.02 and near["interval"] > 0
    assert far["episodes"] == 200 and far["method"] == method


def test_more_episodes_narrow_the_interval_as_the_square_root():
    few, many = (
        evaluate_episodes(*blobs(1.0), FewShotSettings(ways=3, shots=1, queries=5, episodes=n)) for n in (50, 450)
    )
    assert few["interval"] / many["interval"] == pytest.approx(3, rel=0.25)
    assert abs(few["accuracy"] - many["accuracy"]) < few["interval"] + many["interval"]


def test_episodes_can_be_shared_out():
    settings = FewShotSettings(ways=3, shots=1, queries=5, episodes=11)
    whole, even, odd = (right_answers(*blobs(1.0), settings, numbers) for numbers in (range(11), *halves(11)))
    assert torch.equal(whole, even + odd) and even[::2].sum() > 0 and odd[1::2].sum() > 0
    assert not even[1::2].any() and not odd[::2].any()
    accuracies = whole.double() / 15
    metrics = evaluate_episodes(*blobs(1.0), settings)
    assert metrics["accuracy"] == pytest.approx(accuracies.mean().item())
    assert metrics["interval"] == pytest.approx(1.96 * accuracies.std().item() / 11**0.5)


def halves(episodes):
    return range(0, episodes, 2), range(1, episodes, 2)


def test_the_features_are_the_trainers(tmp_path, digits):
    torch.manual_seed(0)
    model = tiny.vit(num_labels=2)  # the classes of the episodes are not the head's
    args = TransferConfig(str(tmp_path), per_device_eval_batch_size=24, report_to=[], disable_tqdm=True, use_cpu=True)
    settings = FewShotSettings(ways=3, shots=1, queries=2, episodes=20)
    got = evaluate_few_shot(TransferTrainer(model, args), digits, settings)
    batch = tiny.batch_of(digits, 64)
    with torch.no_grad():
        features = model.eval().vit(batch["pixel_values"]).last_hidden_state[:, 0]
    assert got == evaluate_episodes(features, batch["labels"], settings)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"`few_shot` has no \['shot'\], accepted"):
        FewShotSettings.of({"shot": 1})
    with pytest.raises(ValueError, match="`method` should be one of"):
        FewShotSettings(method="nearest")
    with pytest.raises(ValueError, match="`episodes` should be at least 2"):
        FewShotSettings(episodes=1)
