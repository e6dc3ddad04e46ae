"""What is pushed to the Hub while a plan is carried out changes nothing of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import BertForSequenceClassification

from hf_transfer import Lifecycle
from hf_transfer.ranking import Ranking
from hf_transfer.runs.lifecycle import lifecycle
from tests import tiny
from tests.runs.folders import save_text_model

MODELS = ("first", "second", "teacher")
PLAN = {
    "data": {"train": "books.csv"},
    "candidates": ["lab/first", "lab/second"],
    "rank": {"score": "logme", "layers": "last"},
    "task": {"methods": [{"feature_distillation": {"teacher": "lab/teacher"}}]},
    "combine": {"methods": ["feature_distillation", "b_tuning"], "top": 2},
    "training": {"max_steps": 1, "per_device_train_batch_size": 8, "use_cpu": True, "save_strategy": "no"},
    "publish": {"output_dir": "out"},
}


class Killed(BaseException):
    """What no handler of errors catches."""


def push(hub, seed: int) -> dict[str, str]:
    """Other weights for every model; their commits by name."""
    commits = {}
    for place, name in enumerate(MODELS):
        model = BertForSequenceClassification(tiny.bert().config)
        model.classifier.bias.data.fill_(float(seed + place))
        folder = save_text_model(Path("pushed"), model)
        files = {
            file.name: hub.store.keep(file.read_bytes(), file.suffix == ".safetensors") for file in folder.iterdir()
        }
        repo = hub.store.find("models", f"lab/{name}") or hub.store.create(f"lab/{name}")
        commits[f"lab/{name}"] = hub.store.add_commit(repo, "main", f"weights {seed}", files).sha
        shutil.rmtree(folder)
    return commits


@pytest.mark.slow
def test_a_push_in_between_changes_nothing(here, hub, monkeypatch):
    commits = push(hub, 0)

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "rank_candidates", killed)
        with pytest.raises(Killed):
            Lifecycle(PLAN, quiet=True).run()
    newer = push(hub, 100)
    assert not set(newer.values()) & set(commits.values())
    Lifecycle(PLAN, quiet=True).run()

    ranking = Ranking.load(next(Path("out").glob("ranking-*")))
    assert {row.model: row.revision for row in ranking.rows} == {
        f"lab/{name}@{commits[f'lab/{name}']}": commits[f"lab/{name}"] for name in ("first", "second")
    }
    begun = [json.loads(path.read_text()) for path in sorted(Path("out").glob("*/base_model.json"))]
    assert len(begun) == 3 and all(one["base_model_revision"] == commits[one["base_model"]] for one in begun)
    members = {name: commit for one in begun for name, commit in one.get("members", {}).items()}
    best = ranking.best.model.partition("@")[0]
    assert members == {name: commit for name, commit in commits.items() if name != best}
    (tuned,) = (path for path in Path("out").glob("combine_b_tuning*/model/README.md"))
    other = next(name for name in PLAN["candidates"] if name != best)
    assert f"{other}@{commits[other]}" in tuned.read_text() and str(newer[other]) not in tuned.read_text()
