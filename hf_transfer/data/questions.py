"""Questions about a context whose answers are parts of it, read from a data set; each answer should stand there.

    {"question": "Who said it?", "context": "And Moses said ...", "answers": {"text": ["Moses"], "answer_start": [4]}}

Rows have these columns, or a json file nests them as SQuAD does (data, paragraphs, qas). Empty lists of answers say
that the context has none. Rajpurkar et al. 2018, https://huggingface.co/papers/1806.03822
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, List, Value
from transformers.utils import logging

from hf_transfer.core.task_loss import REGRESSION
from hf_transfer.data.class_names import WORDS
from hf_transfer.data.holes import column_of, refuse_empty_cells, row_name
from hf_transfer.data.labels import LabelKind
from hf_transfer.data.literal_cells import read_literal

logger = logging.get_logger(__name__)

QUESTION, CONTEXT, ANSWERS = "question", "context", "answers"
LABEL_COLUMN, ID_COLUMN, IMPOSSIBLE = "labels", "id", "is_impossible"
ANSWER_LISTS = {"text": List(Value("string")), "answer_start": List(Value("int64"))}
SHOWN = 40
"""Characters of an answer that a message shows."""


class SpanKind(LabelKind):
    """Labels that are parts of a context: two numbers, where the answer starts and where it ends."""

    def __init__(self) -> None:
        super().__init__(REGRESSION, 2)

    def in_words(self) -> str:
        return "answers that are parts of their contexts"


def squad_rows(found: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of the object of a json file that nests questions as SQuAD does; None where it is something else.

    Raises:
        ValueError: a question that lacks a part; which, is named.
    """
    articles = found.get("data")
    if not isinstance(articles, list) or not all(isinstance(one, dict) and "paragraphs" in one for one in articles):
        return None
    rows = []
    for article, one in enumerate(articles):
        for number, paragraph in enumerate(one["paragraphs"]):
            try:
                rows += [squad_row(question, paragraph[CONTEXT]) for question in paragraph["qas"]]
            except (KeyError, TypeError) as error:
                raise ValueError(f"paragraph {number} of article {article} lacks {error}, which SQuAD has") from None
    return rows


def squad_row(question: Mapping[str, Any], context: str) -> dict[str, Any]:
    """A question of a nested file as a row."""
    answers = None
    if ANSWERS in question or question.get(IMPOSSIBLE):
        given = question.get(ANSWERS) or []
        answers = {name: [one[name] for one in given] for name in ANSWER_LISTS}
    row = {ID_COLUMN: str(question.get(ID_COLUMN, "")), QUESTION: question[QUESTION], CONTEXT: context}
    return {**row, ANSWERS: answers, IMPOSSIBLE: bool(question.get(IMPOSSIBLE))}


def with_answers(dataset: Dataset, role: str, texts: Sequence[str] = (), answers: str | None = None) -> Dataset:
    """Columns `question`, `context`, `id` where there is one and, where answers are known, `labels`.

    `labels` are {"text": [...], "answer_start": [...]}, the number of each answer's first character.

    Args:
        dataset: rows.
        role: what they are for and where they are from, for messages.
        texts: the columns of questions and of contexts, where these have other names.
        answers: likewise of answers.

    Raises:
        ValueError: no such columns, an empty cell, or an answer that does not stand in its context; the row is named.
    """
    columns = tuple(texts) or (QUESTION, CONTEXT)
    named = answers or (ANSWERS if ANSWERS in dataset.column_names else LABEL_COLUMN)
    missing = [name for name in (*columns, *([answers] if answers else [])) if name not in dataset.column_names]
    if missing or len(columns) != 2:
        raise ValueError(
            f"the {role} dataset should have the columns `{QUESTION}`, `{CONTEXT}` and `{ANSWERS}`, and has "
            f"{dataset.column_names}: name those of question and context, in this order, by `text_columns` and that "
            "of answers by `label_column`."
        )
    cells: dict[str, list] = {}
    for name, column in zip((QUESTION, CONTEXT), columns, strict=True):
        cells[name] = words_of(dataset, column, role)
    if ID_COLUMN in dataset.column_names:
        cells[ID_COLUMN] = [str(one) for one in column_of(dataset, ID_COLUMN).to_pylist()]
    rows = Dataset.from_dict(cells)
    if named not in dataset.column_names:
        return rows
    refuse_empty_cells(dataset, [named], role)
    is_marked = IMPOSSIBLE in dataset.column_names
    impossible = column_of(dataset, IMPOSSIBLE).to_pylist() if is_marked else [None] * len(rows)
    found = []
    for index, cell in enumerate(column_of(dataset, named).to_pylist()):
        try:
            found.append(read_answers(cell, cells[CONTEXT][index]))
            if impossible[index] and found[-1]["text"]:
                raise ValueError(f"has an answer and is marked `{IMPOSSIBLE}`: leave one of them out.")
        except ValueError as error:
            raise ValueError(f"{row_name(dataset, index, named)} of the {role} dataset {error}") from None
    without = sum(not one["text"] for one in found)
    if without:
        logger.warning(f"{without} of the {len(found)} {role} rows have no answer in their context.")
    return rows.add_column(LABEL_COLUMN, found, feature=ANSWER_LISTS)


def words_of(dataset: Dataset, column: str, role: str) -> list[str]:
    """The texts of a column. Raises ValueError where one is empty, or the column holds no texts."""
    if getattr(dataset.features[column], "dtype", None) not in WORDS:
        raise ValueError(f"column `{column}` of the {role} dataset holds {dataset.features[column]}, and no texts.")
    refuse_empty_cells(dataset, [column], role)
    values = column_of(dataset, column).to_pylist()
    for index, value in enumerate(values):
        if not value.strip():
            raise ValueError(f"{row_name(dataset, index, column)} of the {role} dataset is blank: leave the row out.")
    return values


def read_answers(cell: Any, context: str) -> dict[str, list]:
    """The answers of a cell, as two lists of the same length.

    Args:
        cell: a dictionary of two lists or of one answer, a list of dictionaries, or either as json or Python write it.
        context: in which each answer should stand where it says.

    Raises:
        ValueError: another form, or an answer that stands elsewhere or nowhere.
    """
    cell = read_literal(cell) if isinstance(cell, str) else cell
    if isinstance(cell, list) and all(isinstance(one, Mapping) and {*ANSWER_LISTS} <= {*one} for one in cell):
        cell = {name: [one[name] for one in cell] for name in ANSWER_LISTS}
    if not isinstance(cell, Mapping) or not {*ANSWER_LISTS} <= {*cell}:
        raise ValueError('is no {"text": [...], "answer_start": [...]}, nor a list of such answers.')
    texts, starts = (one if isinstance(one, list) else [one] for one in (cell[name] for name in ANSWER_LISTS))
    if len(texts) != len(starts):
        raise ValueError(f"has {len(texts)} texts of answers and {len(starts)} starts.")
    for text, start in zip(texts, starts, strict=True):
        check_answer(text, start, context)
    return {"text": texts, "answer_start": [int(start) for start in starts]}


def check_answer(text: Any, start: Any, context: str) -> None:
    """Raises ValueError where an answer does not stand in the context at its start."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"has the answer {text!r}: an answer is a text, and a row without any has empty lists.")
    if not isinstance(start, int | float) or isinstance(start, bool) or start != int(start):
        raise ValueError(f"has the start {start!r}: it is the number of the answer's first character.")
    if start >= 0 and context[int(start) : int(start) + len(text)] == text:
        return
    at = context.find(text)
    where = f"its first place is character {at}" if at >= 0 else "it stands nowhere in it"
    shown = text if len(text) <= SHOWN else text[:SHOWN] + "..."
    raise ValueError(f"has the answer {shown!r}, which does not stand at character {start} of its context: {where}.")
