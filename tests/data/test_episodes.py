from collections import Counter

import pytest
from datasets import Dataset

from hf_transfer.data.episodes import EpisodeSampler, episodes_for
from hf_transfer.few_shot.maml import MAML
from hf_transfer.few_shot.matching import Matching
from hf_transfer.few_shot.prototypical import Prototypical

LABELS = [0] * 9 + [1] * 3 + [2] * 6 + [3] * 7 + [-100] * 4


def episodes_of(sampler):
    rows = list(sampler)
    assert len(rows) == len(sampler)
    return [rows[i : i + sampler.batch_size] for i in range(0, len(rows), sampler.batch_size)]


def test_an_episode_is_support_then_queries_class_by_class():
    sampler = EpisodeSampler(LABELS, ways=2, shots=2, queries=3, seed=1, num_episodes=40)
    seen = set()
    for rows in episodes_of(sampler):
        assert len(set(rows)) == 10, "no row twice"
        classes = [LABELS[row] for row in rows]
        first, second = classes[0], classes[2]
        assert classes == [first] * 2 + [second] * 2 + [first] * 3 + [second] * 3 and first != second
        seen |= {first, second}
    assert seen == {0, 2, 3}, "class 1 has too few rows, and -100 is no class"


def test_it_depends_on_seed_and_epoch_alone():
    sampler, again, other = (EpisodeSampler(LABELS, 2, 1, 2, seed=seed) for seed in (3, 3, 4))
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first == list(again) != list(other)
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert len({tuple(sorted(rows)) for rows in episodes_of(sampler)}) > 1


def test_all_classes_and_rows_are_drawn_alike():
    sampler = EpisodeSampler([0] * 5 + [1] * 5 + [2] * 5, 2, 1, 1, num_episodes=1500)
    counts = Counter(sampler)
    assert all(abs(count - 400) < 80 for count in counts.values()) and len(counts) == 15


def test_processes_get_as_many_episodes_each():
    assert EpisodeSampler(LABELS, 2, 1, 2, num_processes=4).num_episodes == 8


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="3 of the 4 classes have as many rows"):
        EpisodeSampler(LABELS, 4, 2, 2)
    with pytest.raises(ValueError, match="`shots` should be positive"):
        EpisodeSampler(LABELS, 2, 0, 2)
    objectives, rows = [Prototypical(2, 1, 2), Matching(2, 1, 3)], Dataset.from_dict({"labels": LABELS})
    with pytest.raises(ValueError, match="the same .* got"):
        episodes_for(objectives, rows, 6, 0, 1)
    with pytest.raises(ValueError, match="is 6 rows, got 8"):
        episodes_for(objectives[:1], rows, 8, 0, 1)
    assert episodes_for(objectives[:1], rows, 6, 0, 1).batch_size == 6


def test_a_batch_holds_several_episodes_of_a_column():
    rows = Dataset.from_dict({"labels": LABELS, "domain": [0, 1] * (len(LABELS) // 2) + [0] * (len(LABELS) % 2)})
    sampler = episodes_for([MAML(shots=1, queries=2, episodes_per_batch=3, groups="environments")], rows, 9, 0, 2)
    assert sampler.batch_size == 9 and sampler.num_episodes % 6 == 0
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == sampler.num_episodes * 3
    assert all(len({rows["domain"][row] for row in drawn[k : k + 3]}) == 1 for k in range(0, len(drawn), 3))
