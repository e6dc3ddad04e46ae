"""`hf-transfer methods`: all, some, one, a wrong name, and JSON."""

from __future__ import annotations

import json
from functools import partial

import pytest


@pytest.fixture
def run(run, monkeypatch):
    """Types `hf-transfer methods` with the given words."""
    monkeypatch.setenv("COLUMNS", "160")
    return partial(run, "methods")


def test_all_methods_are_listed_with_family_and_paper(run):
    code, out, _ = run()
    assert code == 0 and "Domain adaptation" in out and "Ranking" in out
    (line,) = [line for line in out.splitlines() if " cdan " in line]
    assert "objective" in line and "single-label" in line and "1705.10667" in line


def test_one_family_or_kind(run):
    _, out, _ = run("--family", "tuners")
    assert "residual" in out and "cdan" not in out
    rows = json.loads(run("--kind", "validator", "--json")[1])
    assert {"name", "family", "paper", "summary", "problem_types"} <= rows[0].keys()
    assert {row["kind"] for row in rows} == {"validator"}
    code, _, error = run("--kind", "tuner", "--family", "ranking")
    assert code == 2 and "kinds: ['collator'," in error


def test_one_method(run):
    code, out, _ = run("cdan")
    assert code == 0
    assert "loss = 1/2 E_source" in out and "entropy_conditioning" in out and "papers/1705.10667" in out
    assert "# hf-transfer adapt cdan.yaml" in out and "target_dataset: UNLABELLED" in out
    (page,) = json.loads(run("CDAN", "--json")[1])
    assert page["keywords"][0]["name"] == "entropy_conditioning"
    assert "--score logme" in run("logme")[1]


def test_a_wrong_name_is_told_the_nearest(run):
    code, out, error = run("cdna")
    assert code == 2 and out == "" and "did you mean `cdan`" in error
