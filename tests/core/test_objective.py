import dataclasses

import pytest
import torch

from hf_transfer.core.objective import (
    IGNORED_LABEL,
    SOURCE,
    TARGET,
    AlternatingObjective,
    Objective,
    Phase,
    View,
    alternating_name,
    check_needs,
    no_loss,
)


def make_view(**changes) -> View:
    """Five rows, the second and the fourth of the target, whose features are their row number."""
    rows = torch.arange(5.0).unsqueeze(1)
    fields = {
        "features": rows.expand(5, 3),
        "logits": rows.expand(5, 2),
        "labels": torch.tensor([0, IGNORED_LABEL, 1, IGNORED_LABEL, 0]),
        "domain": torch.tensor([SOURCE, TARGET, SOURCE, TARGET, SOURCE]),
        "progress": 0.25,
        "inputs": {"pixel_values": rows.reshape(5, 1, 1, 1), "temperature": torch.tensor(2.0)},
        "hidden_states": (rows.reshape(5, 1, 1), rows.reshape(5, 1, 1) + 10),
    }
    return View(**{**fields, **changes})


def test_source_and_target_are_the_rows_of_either_domain():
    view = make_view(teacher=make_view(), views=(make_view(),))
    for side, rows in ((view.source, [0, 2, 4]), (view.target, [1, 3])):
        assert side.features[:, 0].tolist() == rows
        assert side.logits[:, 0].tolist() == rows
        assert side.inputs["pixel_values"].flatten().tolist() == rows
        assert side.hidden_states[1].flatten().tolist() == [row + 10 for row in rows]
        assert side.teacher.features[:, 0].tolist() == rows
        assert side.views[0].hidden_states[0].flatten().tolist() == rows
        assert side.progress == 0.25
        assert side.inputs["temperature"] == 2.0
    assert view.source.labels.tolist() == [0, 1, 0]
    assert view.target.labels.tolist() == [IGNORED_LABEL] * 2
    assert view.source.domain.tolist() == [0] * 3 and view.target.domain.tolist() == [1] * 2


def test_the_numbers_that_data_sets_hold():
    """What `domain` columns hold, and the label that collators give to tokens without one."""
    assert (SOURCE, TARGET) == (0, 1)
    assert IGNORED_LABEL == -100 == torch.nn.CrossEntropyLoss().ignore_index


def test_rows_carry_the_gradient_to_the_rows_they_came_from():
    features = torch.ones(5, 3, requires_grad=True)
    make_view(features=features).target.features.sum().backward()
    assert features.grad[:, 0].tolist() == [0, 1, 0, 1, 0]


def test_a_view_of_one_domain_is_all_source_and_has_no_target():
    view = make_view(domain=None)
    assert view.source is view
    with pytest.raises(ValueError, match="this batch has no `domain`: give the dataset a `domain` column"):
        view.target  # noqa: B018


def test_a_view_without_labels_has_rows():
    assert make_view(labels=None, hidden_states=None).target.labels is None


def test_a_view_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_view().progress = 1.0


def test_no_loss_is_zero_and_keeps_the_graph():
    features = torch.ones(5, 3, requires_grad=True)
    loss = no_loss(make_view(features=features))
    loss.backward()
    assert loss.shape == () and loss.item() == 0
    assert torch.equal(features.grad, torch.zeros(5, 3))


def test_no_loss_of_an_empty_batch_is_zero():
    assert no_loss(make_view().rows(torch.zeros(5, dtype=torch.bool))).item() == 0


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="`weight` should be at least 0, got -1"):
        Objective(weight=-1)


def test_an_objective_without_a_forward_says_so():
    class Nameless(Objective):
        pass

    with pytest.raises(NotImplementedError, match=r"Nameless should define `forward\(view\)`"):
        Nameless()(make_view())


def test_needs_are_collected_and_checked():
    class Asks(Objective):
        def __init__(self, *needs):
            super().__init__()
            self.needs = frozenset(needs)

    asked = check_needs({"one": Asks("labels", "teacher"), "two": Asks("teacher", "domain"), "three": Asks()})
    assert asked == {"features", "logits", "labels", "teacher", "domain"}
    assert check_needs({"one": Asks("weights", "labels")}) == {"weights", "labels"}
    assert check_needs({}) == frozenset()
    with pytest.raises(ValueError, match=r"objective `two` needs \['labls'\], accepted: \['domain'"):
        check_needs({"one": Asks("labels"), "two": Asks("labls")})


def test_what_an_objective_is_unless_it_says_otherwise():
    assert Objective().weight == 1.0 and Objective(weight=0).weight == 0
    assert (Objective.label_space, Objective.runs_views, Objective.needs) == ("closed", True, frozenset())
    assert View(torch.zeros(1, 2), torch.zeros(1, 3)).progress == 0.0


# Objectives whose steps alternate.


def test_the_loss_of_an_alternating_objective_is_that_of_its_phase():
    objective, view = AlternatingObjective(), make_view()
    with pytest.raises(NotImplementedError, match=r"AlternatingObjective should define `phases\(progress\)`"):
        objective.phases(0.0)
    with pytest.raises(RuntimeError, match="AlternatingObjective has no phase: a TransferTrainer sets it"):
        objective(view)
    objective.phase = Phase("pull", lambda model: [], lambda view: view.features.sum() + view.progress)
    assert objective(view).item() == 30.25
    objective.phase = Phase("task", lambda model: [])
    assert objective(view).item() == 0
    assert (objective.phase.steps, objective.phase.joins_task, objective.phase.runs_model) == (1, False, True)


def test_the_steps_of_one_objective_can_alternate():
    first, second, plain = AlternatingObjective(), AlternatingObjective(), Objective()
    assert alternating_name({"one": plain}) is None
    assert alternating_name({"one": plain, "two": first}) == "two"
    with pytest.raises(ValueError, match=r"the steps of one objective can alternate, got \['two', 'three'\]"):
        alternating_name({"one": plain, "two": first, "three": second})
