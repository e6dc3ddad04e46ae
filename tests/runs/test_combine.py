"""From a saved ranking to a run that draws on several of its models."""

from __future__ import annotations

import json

import pytest

from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.combine import METHODS, combined
from hf_transfer.training.converters import REGISTRY as CONVERTERS
from hf_transfer.training.objectives import REGISTRY as OBJECTIVES

NAMES = ["first", "second", "third", "baseline", "failed"]


@pytest.fixture
def ranking(tmp_path):
    scores = [0.3, 0.2, 0.1, 0.25, None]
    rows = [{"model": name, "score": score} for name, score in zip(NAMES, scores)]
    rows[3]["is_baseline"] = True
    (tmp_path / "ranking.json").write_text(json.dumps({"rows": rows}))
    return str(tmp_path)


def experiment(**more):
    return parse_arguments([], model="first", dataset="digits", **more)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_is_its_converter_and_its_objective_over_the_next_models(ranking, method):
    made = combined(experiment(objectives={"l2_sp": {}}), method, ranking, 3)
    parts = METHODS[method]
    assert set(made.config.objectives) == {"l2_sp", parts.get("objectives", "l2_sp")}
    assert set(made.model.converters or {}) == ({parts["converters"]} if "converters" in parts else set())
    assert set(parts.get("objectives", "l2_sp").split()) <= set(OBJECTIVES)
    assert set(made.model.converters or {}) <= set(CONVERTERS)
    told = json.dumps([made.config.objectives, made.model.converters])
    if method == "b_tuning":  # whose teachers are all of them
        assert made.config.objectives["b_tuning"] == {"ranking": ranking, "top": 3}
    else:
        assert '["second", "third"]' in told


def test_keywords_of_the_experiment_stay(ranking):
    made = combined(experiment(objectives={"b_tuning": {"weight": 1.0}}), "b_tuning", ranking, 2)
    assert made.config.objectives["b_tuning"] == {"ranking": ranking, "top": 2, "weight": 1.0}
    made = combined(experiment(converters={"zoo_tuning": {"lite": False}}), "zoo_tuning", ranking, 2)
    assert made.model.converters["zoo_tuning"] == {"checkpoints": ["second"], "own_share": 0.9, "lite": False}


def test_what_cannot_be_combined_is_refused(ranking):
    with pytest.raises(ValueError, match="`combine` should be one of .*b_tuning.*got 'average'"):
        combined(experiment(), "average", ranking, 2)
    with pytest.raises(ValueError, match="`top` should be at least 2"):
        combined(experiment(), "b_tuning", ranking, 1)
    with pytest.raises(ValueError, match="from 1 to 3, the scored models"):
        combined(experiment(), "zoo_tuning", ranking, 4)
