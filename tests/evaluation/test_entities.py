"""Entities in tags and their figures, on cases counted by hand."""

import pytest

from hf_transfer.evaluation.entities import entities_of, entity_metrics, name_entities
from hf_transfer.evaluation.metrics import load_metric


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        ("I-PER I-PER O I-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),  # IOB1: B only between neighbours
        ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("B-PER I-PER E-PER I-PER", [("PER", 0, 2), ("PER", 3, 3)]),
        ("S-PER I-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("E-PER E-PER O U-LOC L-LOC", [("PER", 0, 0), ("PER", 1, 1), ("LOC", 3, 3), ("LOC", 4, 4)]),
        ("O O", []),
        ("B-A-B I-A-B", [("A-B", 0, 1)]),
        ("", []),
    ],
)
def test_where_entities_begin_and_end(tags, found):
    assert entities_of(tags.split()) == found


def test_figures_counted_by_hand():
    references = [["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O"]]
    predictions = [["B-PER", "I-PER", "O", "B-PER"], ["B-PER", "O"]]
    found = entity_metrics(predictions, references)
    # 3 are there, 3 were found, 2 are right
    assert found["entity_precision"] == found["entity_recall"] == found["entity_f1"] == 2 / 3
    assert found["PER"] == {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "entities": 2}
    assert found["LOC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "entities": 1}
    half = entity_metrics([["B-PER", "O"]], [["B-PER", "I-PER"]])
    assert half["entity_f1"] == 0.0, "a part of an entity is none"
    assert entity_metrics([["O"]], [["O"]]) == {"entity_precision": 0.0, "entity_recall": 0.0, "entity_f1": 0.0}


def test_the_evaluate_module_gives_the_same():
    tags = [["B-PER", "I-PER", "O", "B-LOC"], ["O"]]
    answers = [["B-PER", "I-PER", "O", "O"], ["O"]]
    assert load_metric("entities").compute(predictions=answers, references=tags) == entity_metrics(answers, tags)


def test_only_names_of_a_scheme_tell_entities():
    assert name_entities(["O", "B-PER", "I-PER"]) and name_entities(["S-X"])
    assert not name_entities(["NOUN", "VERB"]) and not name_entities(["O"]) and not name_entities(["O", "PER"])


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match="sentence 1 has 2 words, and 1 were predicted"):
        entity_metrics([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(ValueError, match="1 sentences were predicted, and there are 2"):
        entity_metrics([["O"]], [["O"], ["O"]])
