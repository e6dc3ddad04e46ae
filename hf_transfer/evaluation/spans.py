"""Answers that are parts of a context: the best one by a model's scores, exact match and F1.

    answer        = argmax over first <= last < first + 30 of s_first + e_last, over all windows of a context
    no answer     where min over windows (s_0 + e_0) is larger; 0 is the token that stands for it
    exact_match   = 1 where answer and a true one are the same after normalisation
    f1            = 2 common / (words of the answer + words of the true one), the best over the true ones

Normalisation: lower case, without punctuation, articles (a, an, the) and needless spaces. A row without an answer is
right where the model gives none. As the official scripts of SQuAD 1.1 and 2.0 count, in shares of 1
(Rajpurkar et al. 2016, https://huggingface.co/papers/1606.05250; 2018, https://huggingface.co/papers/1806.03822).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONGEST_ANSWER = 30
"""Tokens of an answer, as in BERT's script for SQuAD."""
SPAN_METRICS = ("f1", "exact_match")
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Answer:
    """A part of a context; empty for none.

    Args:
        text: the answer.
        start: its first character; -1 for none.
        probability: of its first token times that of its last one, in its window.
    """

    text: str
    start: int
    probability: float


def normalised(text: str) -> str:
    """The words of an answer as they are compared."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 where both are the same after normalisation, else 0."""
    return float(normalised(prediction) == normalised(answer))


def word_f1(prediction: str, answer: str) -> float:
    """F1 of the words of both; of two of which one has none, whether both have none."""
    found, wanted = normalised(prediction).split(), normalised(answer).split()
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def span_metrics(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean F1 and exact match; and F1 of rows with an answer and accuracy of those without, where there are both.

    Args:
        predictions: an answer of every row, empty for none.
        references: the true answers of every row; no one where the context has none.
    """
    scores = np.array(
        [
            [max(score(found, one) for one in wanted or [""]) for score in (word_f1, exact_match)]
            for found, wanted in zip(predictions, references, strict=True)
        ]
    )
    if not len(scores):
        return {}
    has = np.array([bool(wanted) for wanted in references])
    figures = dict(zip(SPAN_METRICS, scores.mean(axis=0).tolist(), strict=True))
    if has.all() or not has.any():
        return figures
    of_kinds = {"has_answer_f1": float(scores[has, 0].mean()), "no_answer_accuracy": float(scores[~has, 1].mean())}
    return figures | of_kinds


def best_span(starts: np.ndarray, ends: np.ndarray, inside: np.ndarray) -> tuple[float, int, int] | None:
    """Score, first and last token of the best answer in a window; None where it holds no context.

    Args:
        starts, ends: scores of every token as the first and as the last one of the answer, [T].
        inside: which tokens are of the context, [T] bool.
    """
    if not inside.any():
        return None
    starts, ends = np.where(inside, starts, -np.inf), np.where(inside, ends, -np.inf)
    following = np.concatenate([ends, np.full(LONGEST_ANSWER - 1, -np.inf)])
    scores = starts[:, None] + np.lib.stride_tricks.sliding_window_view(following, LONGEST_ANSWER)  # [T, 30]
    first, more = divmod(int(scores.argmax()), LONGEST_ANSWER)
    return float(scores[first, more]), first, first + more


def best_answers(
    outputs: np.ndarray,
    rows: Sequence[int],
    offsets: Sequence[Sequence[Sequence[int]]],
    no_answer: Sequence[int],
    contexts: Sequence[str],
) -> list[Answer]:
    """The answer to every row.

    Args:
        outputs: scores of tokens as first and as last one, [W, T, 2]; what stands behind a window is not read.
        rows: the row of every window, [W].
        offsets: first and last character of the tokens of every window, -1 outside the context.
        no_answer: the number of the token that stands for no answer, [W].
        contexts: of every row.
    """
    best: dict[int, tuple[float, Answer]] = {}
    nothing: dict[int, tuple[float, Answer]] = {}
    for scores, row, spans, index in zip(outputs, rows, offsets, no_answer, strict=True):
        spans = np.asarray(spans).reshape(-1, 2)
        starts, ends = np.asarray(scores, dtype=np.float64)[: len(spans)].T
        inside = spans[:, 0] >= 0
        known = inside | (np.arange(len(spans)) == index)
        shares = [share_of(one, known) for one in (starts, ends)]
        none = float(starts[index] + ends[index])
        if row not in nothing or none < nothing[row][0]:
            nothing[row] = none, Answer("", -1, float(shares[0][index] * shares[1][index]))
        found = best_span(starts, ends, inside)
        if found is not None and (row not in best or found[0] > best[row][0]):
            score, first, last = found
            begin, end = int(spans[first, 0]), int(spans[last, 1])
            best[row] = score, Answer(contexts[row][begin:end], begin, float(shares[0][first] * shares[1][last]))
    return [
        best[row][1] if row in best and best[row][0] > nothing[row][0] else nothing[row][1]
        for row in range(len(contexts))
    ]


def share_of(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Softmax over the known tokens, 0 elsewhere; [T]."""
    powers = np.where(known, np.exp(scores - scores[known].max()), 0.0)
    return powers / powers.sum()
