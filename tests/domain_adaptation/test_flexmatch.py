import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.flexmatch import FlexMatch
from hf_transfer.domain_adaptation.self_training import confident_cross_entropy


def built(**keywords):
    objective = FlexMatch(**keywords)
    objective.build(BuildContext(None, feature_dim=7, num_labels=4))
    return objective


def test_thresholds_against_the_formula():
    objective = built(threshold=0.9, memory=10)
    objective.recent.copy_(torch.tensor([0, 0, 0, 0, 1, 1, 2, 4, 4, 4]))
    beta = [1.0, 0.5, 0.25, 0.0]
    assert objective.class_thresholds().tolist() == pytest.approx([0.9 * b / (2 - b) for b in beta])
    objective.recent.copy_(torch.tensor([0, 0, 1, 4, 4, 4, 4, 4, 4, 4]))
    beta = [2 / 7, 1 / 7, 0.0, 0.0]
    assert objective.class_thresholds().tolist() == pytest.approx([0.9 * b / (2 - b) for b in beta])


def test_at_first_every_row_counts(make_view_pair):
    view = make_view_pair()
    target = view.domain == 1
    expected = confident_cross_entropy(view.views[0].logits[target], view.logits[target], 0.0)
    torch.testing.assert_close(built()(view), expected)


def test_only_the_latest_confident_rows_are_remembered():
    objective = built(threshold=0.9, memory=3)
    objective.remember(torch.tensor([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 0, 0.1], [0, 0, 9.0, 0]]))
    assert objective.recent.tolist() == [1, 4, 2]


def test_training_enters_the_target_rows_and_a_checkpoint_keeps_them(make_view_pair):
    objective, other = built(threshold=0.0, memory=5), built(threshold=0.0, memory=5)
    view = make_view_pair(4, 3)
    objective(view)
    assert objective.recent.tolist() == [4, 4, *view.logits[view.domain == 1].argmax(1).tolist()]
    other.load_state_dict(objective.state_dict())
    assert other.recent.tolist() == objective.recent.tolist()


def test_a_batch_without_target_rows_gives_no_loss(make_view_pair):
    assert built()(make_view_pair(4, 0)).item() == 0


@pytest.mark.parametrize("keywords", [{"threshold": 1.0}, {"memory": 0}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        FlexMatch(**keywords)
