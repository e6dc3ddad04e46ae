"""A plan is read once and checked whole: every mistake is one sentence before anything is loaded."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from hf_transfer.runs.lifecycle.methods import read_method, settings_of
from hf_transfer.runs.lifecycle.plan import read_plan

ROOT = Path(__file__).parents[3]
PLAN = {"data": {"train": "books.csv"}, "candidates": ["bert"]}


def plan(**changes):
    return read_plan({**copy.deepcopy(PLAN), **changes})


def test_the_shortest_plan_fine_tunes_and_with_a_target_adapts_to_it():
    read = plan()
    assert [method.label for method in read.task.methods] == ["fine_tuning"] and read.domain is read.combine is None
    assert (read.seeds, read.top, str(read.output_dir)) == (1, 1, "lifecycle_books")
    both = plan(data={"train": "books.csv", "target": "new.csv"})
    assert [method.label for method in both.domain.methods] == ["cdan + mcc"] and both.domain.guard
    assert plan(combine={"methods": ["b_tuning"]}).task is None


def test_a_section_without_methods_has_the_usual_ones():
    read = plan(task={"training": {"max_steps": 3}}).task
    assert [method.label for method in read.methods] == ["fine_tuning"] and read.training == {"max_steps": 3}
    data = {"train": "books.csv", "target": "new.csv"}
    domain = plan(data=data, domain={"guard": False, "methods": [{"source_only": {}, "learning_rate": 1e-3}]}).domain
    assert [method.label for method in domain.methods] == ["cdan + mcc"] and not domain.guard
    assert domain.source_only.arguments == {"learning_rate": 1e-3}


@pytest.mark.parametrize("problem_type", [REGRESSION, MULTI_LABEL])
def test_without_classes_the_usual_method_of_a_domain_reads_no_probabilities_of_classes(problem_type):
    read = plan(data={"train": "books.csv", "target": "new.csv"})
    assert read.with_usual_methods(SINGLE_LABEL) is read
    usual = read.with_usual_methods(problem_type)
    assert [method.label for method in usual.domain.methods] == ["dann"] and usual.domain.guard
    asked = plan(data=read.data, domain={"methods": ["coral"]})
    assert asked.with_usual_methods(problem_type) is asked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taks": {}}, "no section `taks` \\(did you mean `task`\\?\\)"),
        ({"data": {"train": "books.csv", "tset": "x"}}, "no key `tset` \\(did you mean `test`"),
        ({"data": {}}, "says no training data"),
        ({"candidates": []}, "names no candidates"),
        ({"candidates": [{"serach": "bert"}]}, "got .*did you mean `search`"),
        ({"candidates": [3]}, "names and queries"),
        ({"candidates": [{"search": "bert", "limit": 0}]}, "`limit` should be a whole number from 1"),
        ({"candidates": {"search": "bert", "limit": "two"}}, "`limit` should be a whole number, got 'two'"),
        ({"data": {"train": ["a.csv", "b.csv"]}}, "`data.train` should be a string"),
        ({"task": []}, "`task` in the plan should be a mapping"),
        ({"combine": {}}, "`combine` in the plan names no methods"),
        ({"task": {"methods": ["lroa"]}}, "unknown method `lroa` \\(did you mean `lora`"),
        ({"task": {"methods": [{"l2_sp": 3}]}}, "keywords of the method `l2_sp` should be a mapping"),
        ({"task": {"methods": [{"l2_sp": {"alfa": 1}}]}}, "l2_sp.*alfa"),
        ({"task": {"methods": ["lora"], "search": {"learning_rte": [1]}}}, "did you mean `learning_rate`"),
        ({"task": {"methods": ["lora"], "search": {"learning_rate": 1}}}, "should list values"),
        ({"task": {"methods": ["lora"], "search": {"cdan.weight": [1]}}}, "has a part `cdan`"),
        ({"task": {"methods": ["lora"], "training": {"max_steps": "many"}}}, "`max_steps` should be a whole number"),
        ({"training": {"output_dir": "x"}}, "no key `output_dir`"),
        ({"training": {"load_best_model_at_end": True}}, "would choose by test rows"),
        ({"domain": {"methods": ["dann"]}}, "unlabelled rows"),
        ({"combine": {"methods": ["b_tunning"]}}, "did you mean `b_tuning`"),
        ({"combine": {"methods": ["b_tuning"], "top": 1}}, "`combine.top` should be a whole number from 2"),
        ({"budget": {"seeds": 0}}, "`budget.seeds`"),
        ({"budget": {"memory": "much"}}, "a size such as 20GB"),
        ({"budget": {"minutes": -1}}, "`budget.minutes` should be a positive number"),
        ({"budget": {"seed": -1}}, "`budget.seed` should be a whole number from 0"),
        ({"rank": {"score": "logmee"}}, "logmee"),
        ({"rank": {"start": "head"}}, "`rank.start` should be one of \\['model', 'encoder'\\]"),
        ({"rank": {"check": 3}}, "`rank.check` true or false"),
        (
            {"data": {"train": "a", "source": "b"}},
            "`data.source` is adapted to a target: name it",
        ),
        ({"data": {"train": "a", "source_split": "b"}}, "`data.source_split` is of the `source`"),
        ({"task": {"methods": ["lora", "lora"]}}, "every method needs a name of its own"),
        ({"task": {"methods": [{"name": "mine"}]}}, "a method has a part"),
        ({"task": {"methods": [{"source_only": {}}]}}, "unknown method `source_only`"),
    ],
)
def test_a_mistake_is_one_sentence(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        plan(**changes)


def test_null_says_as_much_as_a_key_left_out():
    sections = {"rank": dict.fromkeys(["score", "layers", "top", "batch_size"]), "budget": {"seeds": None}}
    read = plan(data={"train": "books.csv", "target": None, "source": None, "test": None}, **sections)
    bare = plan()
    assert (read.domain, read.data, read.rank, read.top, read.seeds) == (None, bare.data, bare.rank, 1, 1)
    assert plan(training={"eval_steps": None}).training == {"eval_steps": None}


def test_values_of_a_plan_are_read():
    read = plan(budget={"memory": "1.5GB", "minutes": 2}, rank={"top": 2, "layers": "last"})
    assert (read.memory, read.minutes, read.top, dict(read.rank)) == (1_500_000_000, 2.0, 2, {"layers": "last"})
    with pytest.raises(ValueError, match="`domain.validator` should be one of"):
        plan(data={"train": "a", "target": "b"}, domain={"methods": ["dann"], "validator": "entropie"})


def test_labels_of_the_target_and_another_source_are_one_plan():
    data = {"train": "new.csv", "labels_per_class": 5, "source": "old.csv", "source_split": "train"}
    read = plan(data=data, rank={"start": "encoder", "check": True}, budget={"seed": 3})
    assert [method.label for method in read.domain.methods] == ["cdan + mcc"], "what has no label is the target"
    assert (read.start, read.checks, read.seed, dict(read.rank)) == ("encoder", True, 3, {})
    assert read.data_arguments().dataset == "new.csv" and read.data_arguments().target_dataset is None


def test_source_only_may_have_arguments_of_its_own():
    data, own = {"train": "a", "target": "b"}, {"source_only": {}, "learning_rate": 0.1}
    read = plan(data=data, domain={"methods": [own, {"dann": {}, "name": "DANN"}]}).domain
    assert read.source_only.arguments == {"learning_rate": 0.1} and read.source_only.label == "source_only"
    assert [(one.label, dict(one.arguments)) for one in read.methods] == [("DANN", {"objectives": {"dann": {}}})]
    with pytest.raises(ValueError, match="takes arguments of a training, such as learning_rate, got `dann`"):
        plan(data=data, domain={"methods": [{"source_only": {}, "dann": {}}]})


def test_a_method_is_the_arguments_that_it_stands_for():
    assert read_method("fine_tuning").arguments == {}
    assert read_method({"lora": {"r": 2}}).arguments["peft"]["r"] == 2
    both = read_method({"cdan": {"weight": 0.1}, "dsbn": {}, "learning_rate": 0.1})
    assert both.arguments == {
        "objectives": {"cdan": {"weight": 0.1}}, "converters": {"dsbn": {}}, "learning_rate": 0.1
    }  # fmt: skip
    assert both.label == "cdan(weight=0.1) + dsbn + learning_rate=0.1"
    changed = both.changed({"cdan.weight": 1.0, "max_steps": 3})
    assert changed["objectives"] == {"cdan": {"weight": 1.0}} and changed["max_steps"] == 3
    assert both.arguments["objectives"] == {"cdan": {"weight": 0.1}}, "the method itself is as it was"


def test_the_settings_are_all_combinations_that_apply_or_a_part_of_them():
    search = {"learning_rate": [1, 2], "cdan.weight": [3, 4]}
    assert settings_of(read_method("dann"), search, None) == [{"learning_rate": 1}, {"learning_rate": 2}]
    of_cdan = settings_of(read_method("cdan"), search, None)
    assert len(of_cdan) == 4 and {"learning_rate": 2, "cdan.weight": 3} in of_cdan
    few = settings_of(read_method("cdan"), search, 3)
    assert len(few) == 3 and few == settings_of(read_method("cdan"), search, 3)
    assert settings_of(read_method("cdan"), {}, 3) == [{}]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "lifecycle").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_is_a_plan_and_says_how_to_start_it(path):
    assert path.read_text().splitlines()[0] == f"# hf-transfer run {path.relative_to(ROOT)}"
    read = read_plan(path)
    assert read.candidates or read.pretrain
