"""Two real processes (gloo) end where one process with twice the batch ends."""

import json
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from tests import distributed_runs
from tests.marks import slow
from tests.processes import run_module

TUNED = list(distributed_runs.TUNED)
CORE = ["cross_entropy", "adversarial", "alternating", "bi_tuning", "streamed", "maml", "difference", "moco", "tokens"]
FURTHER = sorted(set(distributed_runs.makers()) - set(CORE))
NAMES = [*CORE, *(slow(name) for name in FURTHER)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """From CORE or FURTHER to what they end in: see `two` and `one`."""

    @cache
    def ends(names: tuple[str, ...]):
        folder = tmp_path_factory.mktemp("two")
        # a command that is not told `use_cpu` takes it from there
        run_module("tests.distributed_runs", str(folder), *names, ACCELERATE_USE_CPU="true")
        first, second = (torch.load(folder / f"rank_{rank}.pt") for rank in (0, 1))
        alone = tmp_path_factory.mktemp("one")
        states = distributed_runs.run(alone, 16, names)
        facts = [json.loads((one / "facts.json").read_text()) for one in (folder, alone)]
        return (first, second, facts[0], folder), (states, facts[1])

    return ends


@pytest.fixture
def of_this_test(runs, request):
    further = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name") in FURTHER
    return runs(tuple(FURTHER if further else CORE))


@pytest.fixture
def two(of_this_test):
    """(states of the first process, states of the second, facts, folder) of the runs on two processes."""
    return of_this_test[0]


@pytest.fixture
def one(of_this_test):
    """(states, facts) of the same runs on this process, with twice the batch."""
    return of_this_test[1]


def test_there_are_two_processes(two, one):
    assert two[2]["world_size"] == 2
    assert one[1]["world_size"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one_with_twice_the_batch(two, one, name):
    ends, alone = two[0][name], one[0][name]
    assert ends.keys() == alone.keys()
    for key, value in alone.items():
        # statistics of batches add up in another order on each processor, and an adversary makes more of it
        bounds = {"rtol": 1e-4, "atol": 1e-4 if key.endswith("running_mean") else 1e-5}
        torch.testing.assert_close(ends[key], value, **bounds, msg=lambda text, key=key: f"{key}: {text}")
    assert two[2]["losses"][name] == pytest.approx(one[1]["losses"][name], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_both_processes_hold_the_same_weights(two, name):
    for key, value in two[0][name].items():
        assert torch.equal(value, two[1][name][key]), key


@pytest.mark.parametrize("name", [name if name in CORE else slow(name) for name in distributed_runs.RESUMED])
def test_resuming_on_two_processes_equals_a_straight_run(two, name):
    for states in two[:2]:
        for key, value in states[name].items():
            if not key.endswith("gate"):  # once projected, a difference has no more use for its gates
                assert torch.equal(value, states[f"{name}_resumed"][key]), key


@pytest.mark.parametrize("name", NAMES)
def test_the_runs_have_moved(one, name):
    """Otherwise everything above would hold of models that never learned."""
    assert one[1]["moved"][name] > 1e-3


def test_the_validator_reads_every_row_once(two, one):
    assert two[2]["score"] == pytest.approx(one[1]["score"], abs=1e-5)
    assert two[2]["tokens"] == pytest.approx(one[1]["tokens"], abs=1e-5)


def test_the_gauges_of_collapse_read_every_row_once(two, one):
    assert two[2]["gauges"] == pytest.approx(one[1]["gauges"], rel=1e-4)
    assert one[1]["gauges"][0] > 2


def test_few_shot_evaluation_shares_rows_and_episodes_out(two, one):
    assert two[2]["printed"] == one[1]["printed"] and (two[3] / "printed_by_1").read_text() == ""
    metrics = json.loads(one[1]["printed"])
    assert 0 < metrics["accuracy"] < 1 and metrics["interval"] > 0 and metrics["episodes"] == 21


def test_the_keys_of_all_processes_enter_the_queues(two):
    labels = distributed_runs.half_labelled(distributed_runs.tiny.digit_rows(0, 64))["labels"][:]
    counts = torch.bincount(labels[labels >= 0], minlength=10)
    places = two[0]["bi_tuning"]["objectives.bi_tuning.places"]
    assert torch.equal(places, counts % distributed_runs.QUEUE_SIZE)


def test_the_queue_of_moco_holds_the_keys_of_all_processes(two):
    queue = two[0]["moco"]["objectives.moco.queue"]
    assert two[0]["moco"]["objectives.moco.place"] == distributed_runs.STEPS * 16 % len(queue)


@pytest.mark.parametrize("name", [slow("whole_batch")])
def test_flexmatch_remembers_the_rows_of_all_processes(two, name):
    recent = two[0][name]["objectives.flexmatch.recent"]
    shown = distributed_runs.STEPS * 8
    assert len(recent) < shown and 0 < (recent == 10).sum() < len(recent)
    assert torch.equal(recent, two[1][name]["objectives.flexmatch.recent"])


@pytest.mark.parametrize("name", ["difference", slow("reopened")])
def test_a_difference_is_as_sparse_on_every_process(two, name):
    for states in two[:2]:
        masks = torch.cat([value.flatten() for key, value in states[name].items() if key.endswith(".mask")])
        assert masks.sum() == round(0.05 * len(masks))
    assert name == "difference" or two[2]["reopened"].endswith(f"checkpoint-{distributed_runs.STOP}")


@pytest.mark.parametrize("name", [name if name in CORE else slow(name) for name in TUNED])
def test_the_main_process_alone_saves(two, name):
    saved = load_file(two[3] / "saved_by_0" / name / "adapter_model.safetensors")
    assert len(saved) > 2 and not (two[3] / "saved_by_1").exists()
    assert any(key.endswith(".index") for key in saved) == (name in ("difference", "reopened"))
