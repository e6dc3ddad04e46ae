import json
from dataclasses import asdict

import pytest
from accelerate import PartialState, debug_launcher

from hf_transfer.ranking import Ranking, RankingRow, rank_models, sharing
from hf_transfer.ranking.journal import Journal, journal_files
from hf_transfer.ranking.sharing import SharedModels, SharedRows, dealt_back, once_an_architecture, sharing_of

FACTS = ("rows", "batch_size", "parameters", "architecture", "reason", "layer", "layers", "others", "is_baseline")


def row(name, architecture="vit", is_baseline=False):
    return RankingRow(name, 0.5, 0.1, revision="r", architecture=architecture, is_baseline=is_baseline)


@pytest.fixture
def three(monkeypatch):
    """This process as the second of three."""
    state = PartialState()
    monkeypatch.setitem(state._shared_state, "num_processes", 3)
    monkeypatch.setitem(state._shared_state, "process_index", 1)
    monkeypatch.setattr(sharing.dist, "new_group", lambda **options: "group")


def test_every_process_takes_other_models_and_they_come_back_in_order(three, monkeypatch):
    names = [f"m{place}" for place in range(8)]
    assert SharedModels().names(names) == ["m1", "m4", "m7"] and SharedRows().names(names) == names
    monkeypatch.setattr(
        sharing.dist,
        "all_gather_object",
        lambda parts, own, group: parts.__setitem__(
            slice(None), [own if p == 1 else [[row(n)] for n in names[p::3]] for p in range(3)]
        ),
    )
    joined = SharedModels().joined([[row(name)] for name in names[1::3]])
    assert [one.model for one in joined] == names


def test_more_processes_than_models():
    parts = [[[row("a")]], [], []]
    assert [one.model for (one,) in dealt_back(parts)] == ["a"]


def test_an_architecture_has_one_baseline_that_of_its_first_model():
    first = [row("a", "vit"), row("a (random)", "vit", True)]
    second = [row("b", "vit"), row("b (random)", "vit", True)]
    failed = [row("c", "bert"), row("c (random)", None, True)]
    other = [row("d", "gpt"), row("d (random)", None, True)]
    kept = once_an_architecture([[row("x", "vit")], first, second, failed, other])
    assert [[one.model for one in rows] for rows in kept] == [
        ["x"],
        ["a", "a (random)"],
        ["b"],
        ["c", "c (random)"],
        ["d", "d (random)"],
    ]


def test_what_auto_chooses(three):
    assert isinstance(sharing_of("auto", 3, 10_000, False), SharedModels)
    assert isinstance(sharing_of("auto", 2, 100, False), SharedRows)
    assert isinstance(sharing_of("auto", 3, 10_001, False), SharedRows)
    assert isinstance(sharing_of("auto", 3, 100, True), SharedRows)
    assert isinstance(sharing_of("data", 3, 100, False), SharedRows)
    assert isinstance(sharing_of("models", 2, 10_001, False), SharedModels)


def test_mistakes(three):
    with pytest.raises(ValueError, match=r"`parallel` should be one of \['data', 'models', 'auto'\], got 'rows'"):
        sharing_of("rows", 3, 100, False)
    with pytest.raises(ValueError, match="does not go with `free_disk`"):
        sharing_of("models", 3, 100, True)


def test_the_journals_of_processes_become_one(tmp_path, monkeypatch):
    state = PartialState()._shared_state
    with monkeypatch.context() as other:
        other.setitem(state, "process_index", 2)
        Journal(tmp_path, {}).add(row("b"))
    main = Journal(tmp_path, {})
    main.add(row("a"))
    assert [path.name for path in journal_files(tmp_path)] == ["rows.jsonl", "rows-2.jsonl"]
    assert main.find("b", "r") == row("b")
    main.join()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    again = Journal(tmp_path, {})
    assert again.find("a", "r") == row("a") and again.find("b", "r") == row("b")
    Journal(tmp_path, {}, resume=False)
    assert not journal_files(tmp_path)


def facts(ranking):
    return [(one.model, *(asdict(one)[name] for name in FACTS)) for one in ranking.rows]


def rank_in_two_processes(models, dataset, target):
    PartialState._reset_state()
    options = {"batch_size": 64, "score": "logme", "random_baseline": True, "progress": False}
    ranking = rank_models(models, dataset, parallel="models", output_dir=target, **options)
    index = PartialState().process_index
    (target / f"by_{index}.json").write_text(ranking.to_json())
    # one candidate for two processes
    again = rank_models(models[:1], dataset, parallel="models", output_dir=target / "one", **options)
    assert len(again.rows) == 2


def test_two_processes_with_models_of_their_own_give_the_ranking_of_one(zoo, digits, tmp_path, monkeypatch):
    models = [str(zoo / "vit0"), str(zoo / "vit1"), str(tmp_path / "absent")]
    options = {"batch_size": 64, "score": "logme", "random_baseline": True, "progress": False}
    alone = rank_models(models, digits, **options)
    debug_launcher(rank_in_two_processes, (models, digits, tmp_path / "out"), num_processes=2)
    saved = Ranking.load(tmp_path / "out")
    # exactly: nothing is added up in another order
    assert facts(saved) == facts(alone)
    first, second = ((tmp_path / "out" / f"by_{index}.json").read_text() for index in range(2))
    assert first == second and json.loads(first)["settings"] == json.loads(alone.to_json())["settings"]
    assert [path.name for path in journal_files(tmp_path / "out")] == ["rows.jsonl"]
    monkeypatch.setattr("hf_transfer.ranking.scorer.ModelScorer.load", lambda *args: pytest.fail("scored again"))
    assert facts(rank_models(models, digits, output_dir=tmp_path / "out", **options)) == facts(alone)
