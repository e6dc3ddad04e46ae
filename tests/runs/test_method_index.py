"""What is read of registries, signatures and docstrings, and the YAML that every method starts from."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
import yaml

from hf_transfer.core.problem_types import ANY_PROBLEM
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.method_index import ELSEWHERE, FAMILIES, KINDS, all_methods, methods_named
from hf_transfer.runs.method_page import first_yaml, keyword_rows, page_of
from hf_transfer.runs.method_tables import BEGIN, END, table_of, usage, with_table
from hf_transfer.runs.source_constants import registry_in
from hf_transfer.training.converters import REGISTRY as CONVERTERS
from hf_transfer.training.objectives import REGISTRY as OBJECTIVES
from hf_transfer.training.objectives import make_objectives


def test_what_is_known_of_one_method():
    (cdan,) = methods_named("CDAN")
    assert (cdan.kind, cdan.family, cdan.file) == ("objective", "domain_adaptation", "domain_adaptation/cdan.py")
    assert cdan.paper == "https://huggingface.co/papers/1705.10667"
    assert cdan.tasks == ["single_label_classification"]
    assert cdan.formula.splitlines()[0].strip().startswith("loss = 1/2 E_source[")
    assert cdan.keywords["hidden_size"] == 1024 and cdan.keywords["entropy_conditioning"] is False
    assert ("weight", "1.0", "factor of this term in the training loss.") in keyword_rows(cdan)


def test_a_tuner_shows_its_own_fields_and_a_validator_no_inputs():
    (residual,) = methods_named("residual")
    assert {"r", "placement"} <= residual.keywords.keys() and "revision" not in residual.keywords
    assert methods_named("entropy")[0].keywords == {}


def test_two_methods_of_one_name_are_both_found():
    assert [one.kind for one in methods_named("mdd")] == ["objective", "validator"]


@pytest.mark.parametrize(("typed", "nearest"), [("cdna", "cdan"), ("l2-ps", "l2_sp"), ("log_me", "logme")])
def test_a_typing_mistake_is_told_the_nearest_name(typed, nearest):
    with pytest.raises(ValueError, match=f"unknown method `{typed}`: did you mean .*`{nearest}`"):
        methods_named(typed)


def test_every_first_yaml_can_be_read(tmp_path):
    for method in all_methods():
        if (values := first_yaml(method)) is None:
            assert usage(method).count("`") == 2
            continue
        path = tmp_path / "start.yaml"
        path.write_text(page_of(method)["yaml"])
        experiment = parse_arguments([str(path), "--report_to", "[]", "--use_cpu"])
        assert experiment.config.output_dir == f"outputs/{method.name}"
        if values.get("objectives"):
            make_objectives(values["objectives"])
        for name, registry in (("objectives", OBJECTIVES), ("converters", CONVERTERS)):
            assert set(values.get(name, {})) <= set(registry)
        assert method.name in str(values) or values.get("hyper_rule") == "bit"


def test_keywords_that_have_to_be_given_are_in_the_first_yaml():
    (method,) = methods_named("distillation")
    assert method.keywords["teacher"] is inspect.Parameter.empty
    assert first_yaml(method)["objectives"] == {"distillation": {"teacher": "FOLDER"}}
    assert yaml.safe_load(page_of(method)["yaml"]) == first_yaml(method)


def test_a_table_takes_the_place_of_the_old_one_and_the_text_around_it_stays():
    text = f"# Tuners\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"
    new = with_table(text, table_of("tuners"))
    assert new.startswith(f"# Tuners\n\nBefore.\n\n{BEGIN}\n| method |") and new.endswith(f"{END}\n\nAfter.\n")
    assert "old" not in new and "[ResidualConfig](../tuners/residual/__init__.py)" in new
    assert with_table(new, table_of("tuners")) == new
    assert with_table("", table_of("tuners"), FAMILIES["tuners"]).startswith(f"# {FAMILIES['tuners']}\n\n{BEGIN}")
    assert "recipes/task_adaptation/digits_residual.yaml" in table_of("tuners")


def test_what_is_read_from_the_source_is_what_the_imported_methods_have():
    for method in all_methods():
        paper = getattr(method.object, "paper", None)
        assert not paper or method.paper.endswith(paper), method
        tasks = getattr(method.object, "tasks", None)
        if isinstance(tasks, frozenset) and method.kind != "validator":
            assert method.tasks == ([] if tasks == ANY_PROBLEM else sorted(tasks)), method
    places = [(f"hf_transfer.{family}", registry) for family in FAMILIES for registry in KINDS]
    for module, registry in (*places, *(place[2:] for place in ELSEWHERE)):
        assert registry_in(module, registry) == getattr(importlib.import_module(module), registry, {})


def test_the_list_needs_no_torch():
    program = "import sys; from hf_transfer.runs.method_index import all_methods; "
    program += "[one.as_row() for one in all_methods()]; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr
