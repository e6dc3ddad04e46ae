"""What a budget leaves out, in which order, and what a dry run says without touching anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_transfer import Lifecycle
from hf_transfer.hub import retry
from hf_transfer.runs.lifecycle.budget import Work, fit, with_staying
from hf_transfer.runs.lifecycle.measure import minutes_of
from tests.runs.lifecycle.test_lifecycle import changed


def works() -> list[Work]:
    """Two methods on two models, and a domain stage; each takes 1 minute to search and 2 for a seed."""
    names = [("task", model, method, rank) for rank, model in enumerate("ab") for method in ("first", "second")]
    names += [("domain", "a", method, 0) for method in ("source_only", "dann", "cdan")]
    return with_staying([Work(*name, search=1.0, training=2.0, memory=10 * (name[3] + 1)) for name in names])


def test_the_least_promising_go_first_and_then_seeds():
    assert fit(works(), 2, None, None) == (works(), 2, [])
    left, seeds, told = fit(works(), 2, 25.0, None)  # 7 x 5 = 35
    assert [one.name for one in left] == [
        ("task", "a", "first"), ("task", "a", "second"), ("domain", "a", "source_only"),
        ("domain", "a", "dann"), ("domain", "a", "cdan"),
    ]  # fmt: skip
    assert seeds == 2 and told == [
        "task: second on b is left out: the plan needs about 35.0 minutes of 25.",
        "task: first on b is left out: the plan needs about 30.0 minutes of 25.",
    ]
    left, seeds, told = fit(works(), 2, 14.9, None)  # three that stay: 15 minutes with two seeds, 9 with one
    assert [one.method for one in left] == ["first", "source_only", "dann"] and seeds == 1
    assert told[-1] == "1 seeds are trained: the plan needs about 15.0 minutes of 14.9."
    with pytest.raises(ValueError, match="`budget.minutes` is too small: the plan needs about 9.0 minutes of 8"):
        fit(works(), 2, 8.0, None)


def test_what_needs_more_memory_is_left_out():
    left, _, told = fit(works(), 1, None, 15)
    assert {one.model for one in left} == {"a"} and len(told) == 2 and "needs about" in told[0]
    with pytest.raises(ValueError, match="`budget.memory` leaves nothing"):
        fit(works(), 1, None, 5)


def test_minutes_are_those_of_start_steps_and_evaluation():
    measured = {"start": 30.0, "step": 2.0}
    assert minutes_of(measured, 10, 24, 8) == pytest.approx((30 + 10 * 2 + 2 / 3 * 3) / 60)


def test_a_dry_run_says_what_it_costs_and_writes_nothing(here):
    plan = changed(budget={"minutes": 60, "seeds": 2}, task={"methods": ["lora"]})
    estimate = Lifecycle(plan).dry_run()
    assert not Path("out").exists()
    words = estimate.in_words()
    assert "16 train, 4 validation, 4 test" in words and "measured on bert" in words and "lora" in words
    assert estimate.minutes == pytest.approx(sum(2 * one.training + one.search for one in estimate.work))
    assert 0 < estimate.minutes < 5 and estimate.download == 0 and estimate.disk > 0


def test_a_method_that_does_not_fit_the_model_is_told_before_anything_is_trained(here, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    plan = changed(candidates=["bert"], task={"methods": ["fine_tuning", "stoch_norm"]})
    del plan["rank"]
    with pytest.raises(ValueError, match="task: stoch_norm on bert.*has no batch norm"):
        Lifecycle(plan, quiet=True).run()


def test_a_budget_is_made_once_and_told(here, monkeypatch):
    """The times that are measured differ from run to run; what is left out does not."""
    from hf_transfer.runs.lifecycle import schedule

    plan = changed(candidates=["bert"], budget={"minutes": 1.0}, task={"methods": ["fine_tuning", "lora"]})
    del plan["rank"]
    slow = {"start": 1.0, "step": 14.0, "memory": 1, "parameters": 1}
    monkeypatch.setattr(schedule, "measure", lambda *args, **kwargs: slow)
    outcome = Lifecycle(plan, quiet=True).run()
    assert [entry.method for entry in outcome.entries] == ["fine_tuning"]
    assert "lora on bert is left out" in Path("out/report.md").read_text()
    monkeypatch.setattr(schedule, "measure", lambda *args, **kwargs: {**slow, "step": 1e-6})
    assert [entry.method for entry in Lifecycle(plan, quiet=True).run().entries] == ["fine_tuning"]


def test_a_dry_run_asks_the_hub_for_sizes_and_downloads_nothing(here, hub):
    hub.add_folder("lab/far-bert", here / "bert")
    hub.add_folder("lab/far-gpt2", here / "gpt2")
    plan = changed(candidates=["bert", "lab/far-bert"], rank={"top": 2}, task={"methods": ["fine_tuning"]})
    estimate = Lifecycle(plan).dry_run()
    size = (here / "bert" / "model.safetensors").stat().st_size
    assert estimate.download == size and [one["bytes"] for one in estimate.candidates] == [size, size]
    assert not any("/resolve/" in one["path"] for one in hub.requests), "a file was fetched"
    first, second = estimate.work
    assert (first.model, second.model) == ("bert", "lab/far-bert") and second.training == first.training

    alone = Lifecycle(changed(candidates=["lab/far-bert", "lab/far-gpt2"])).dry_run()
    words = alone.in_words()
    assert alone.measured_on is None and alone.work == [] and "no candidate is here to measure on" in words
    assert alone.download == sum((here / name / "model.safetensors").stat().st_size for name in ("bert", "gpt2"))


@pytest.mark.slow
def test_a_dry_run_says_where_the_hub_does_not_answer(here, hub, monkeypatch):
    monkeypatch.setattr(retry, "sleep", lambda seconds: None)
    hub.add_folder("lab/far-bert", here / "bert")
    hub.fail(503, path="/api/models/lab/far-bert", times=4)
    hub.fail(503, path=r"/api/models\?", times=20)
    estimate = Lifecycle(changed(candidates=["bert", "lab/far-bert", "lab/nothing", {"search": "finance"}])).dry_run()
    words = estimate.in_words()
    assert (
        "unknown size  on the Hub, which did not tell: Asking for 'lab/far-bert' failed: the Hub is in trouble"
        in words
    )
    assert words.count("which did not tell") == 3 and "no such repository" in words
    assert "query {'search': 'finance'}" in words and "0.0 MB are downloaded, and 3 of unknown size" in words
    assert estimate.minutes > 0


@pytest.mark.slow
def test_a_dry_run_measures_combinations_or_gives_a_bound(here, hub):
    combine = {"methods": ["b_tuning", "feature_distillation"], "top": 2}
    estimate = Lifecycle(changed(task={"methods": ["fine_tuning"]}, combine=combine)).dry_run()
    costs = {one.method: one for one in estimate.work if one.stage == "combine"}
    assert set(costs) == {"b_tuning", "feature_distillation"} and all(one.training > 0 for one in costs.values())
    assert "bounds" not in estimate.in_words()

    hub.add_folder("lab/far-bert", here / "bert")
    plan = changed(candidates=["bert", "lab/far-bert"], task={"methods": ["fine_tuning"]}, combine=combine)
    estimate = Lifecycle(plan).dry_run()
    alone, *both = estimate.work
    assert [one.training for one in both] == pytest.approx([2 * alone.training] * 2)
    assert "these are bounds: what fine-tuning each of its 2 models alone takes" in estimate.in_words()
    with pytest.raises(ValueError, match="`combine.top` is 3, and 2 candidates are ranked"):
        Lifecycle(changed(combine={**combine, "top": 3})).dry_run()
