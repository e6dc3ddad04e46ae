"""Questions and contexts as inputs of a model: a context that is too long becomes several overlapping windows.

A window holds the question and a part of the context. Its labels are the first and the last token of the answer, or
twice the token that stands for no answer where the window does not hold the whole answer: the classification token, or
the first one where the tokenizer has none (Devlin et al. 2019, https://huggingface.co/papers/1810.04805).
"""

from __future__ import annotations

from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_transfer.data.questions import CONTEXT, LABEL_COLUMN, QUESTION

logger = logging.get_logger(__name__)

USUAL_LENGTH, MOST_OVERLAP = 384, 128
"""Tokens of a window where neither model nor user name a limit, and at most of two in common: as BERT on SQuAD."""
ROW, OFFSETS, NO_ANSWER = "row", "offsets", "no_answer"
"""Columns of windows: their row; first and last character of each token of the context, -1 for others; the number of
the token that stands for no answer."""
OUTSIDE = [-1, -1]


def answer_windows(rows: Dataset, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> Dataset:
    """Every row as one or more windows, in their order.

    Args:
        rows: of `hf_transfer.data.questions.with_answers`.
        tokenizer: a fast one that pads on the right.
        longest: tokens of a window; `USUAL_LENGTH` when None.

    Raises:
        ValueError: a question leaves no room for the context; the row is named.
    """
    longest = USUAL_LENGTH if longest is None else longest
    overlap = min(MOST_OVERLAP, longest // 3)
    check_questions(rows, tokenizer, longest, overlap)
    knows_answers = LABEL_COLUMN in rows.column_names

    def tokenize(batch: dict[str, list], numbers: list[int]) -> dict[str, list]:
        encoded = tokenizer(
            [question.lstrip() for question in batch[QUESTION]],
            batch[CONTEXT],
            truncation="only_second",
            max_length=longest,
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        sources, spans = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
        made: dict[str, list] = {**encoded, ROW: [numbers[source] for source in sources], OFFSETS: [], NO_ANSWER: []}
        labels = []
        for window, source in enumerate(sources):
            parts = encoded.sequence_ids(window)
            offsets = [list(span) if part == 1 else OUTSIDE for span, part in zip(spans[window], parts, strict=True)]
            made[OFFSETS].append(offsets)
            made[NO_ANSWER].append(token_of_no_answer(encoded["input_ids"][window], tokenizer))
            if knows_answers:
                answers = batch[LABEL_COLUMN][source]
                labels.append(answer_tokens(answers, offsets) or [made[NO_ANSWER][-1]] * 2)
        return {**made, LABEL_COLUMN: labels} if knows_answers else made

    ready = rows.map(
        tokenize, with_indices=True, batched=True, remove_columns=rows.column_names, desc="Reading questions"
    )
    if knows_answers:
        ready = ready.cast_column(LABEL_COLUMN, List(Value("int64"), length=2))
        tell_lost_answers(rows, ready, longest)
    return ready


def check_questions(rows: Dataset, tokenizer: PreTrainedTokenizerBase, longest: int, overlap: int) -> None:
    """Raises ValueError where a question leaves fewer tokens of a window than two windows have in common."""
    room = longest - tokenizer.num_special_tokens_to_add(pair=True) - overlap - 1
    questions = tokenizer([question.lstrip() for question in rows[QUESTION]], add_special_tokens=False)["input_ids"]
    for row, tokens in enumerate(questions):
        if len(tokens) > room:
            raise ValueError(
                f"row {row}: its question has {len(tokens)} tokens, and at most {max(room, 0)} leave enough of "
                f"{longest} for the context: shorten it, or raise `max_length` as far as the model allows."
            )


def token_of_no_answer(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of the token that stands for no answer."""
    return ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0


def answer_tokens(answers: dict[str, list], offsets: list[list[int]]) -> list[int] | None:
    """First and last token of the first answer; None where there is none, or the window lacks a part of it."""
    if not answers["text"]:
        return None
    start = answers["answer_start"][0]
    end = start + len(answers["text"][0])
    inside = [index for index, (first, last) in enumerate(offsets) if first < end and last > start and first >= 0]
    known = [span for span in offsets if span[0] >= 0]
    if not inside or known[0][0] > start or known[-1][1] < end:
        return None
    return [inside[0], inside[-1]]


def tell_lost_answers(rows: Dataset, ready: Dataset, longest: int) -> None:
    """Log how many answers no window holds."""
    windows = zip(ready[ROW], ready[LABEL_COLUMN], ready[NO_ANSWER], strict=True)
    found = {row for row, (first, _), nothing in windows if first != nothing}
    lost = [row for row, one in enumerate(rows[LABEL_COLUMN]) if one["text"] and row not in found]
    if lost:
        logger.warning(
            f"{len(lost)} answers, the first in row {lost[0]}, are not trained on: no window of {longest} tokens "
            "holds them whole, or the tokenizer drops their letters."
        )
