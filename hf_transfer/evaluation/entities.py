"""Entities in tags of words, and precision, recall and F1 of those that a tagger finds.

    precision = right / found,   recall = right / there,   F1 = 2 right / (found + there)

An entity is right where its type, its first and its last word are. A tag is O, or a prefix and a type, such as B-PER:
B begins an entity, I goes on with one, E (or L) ends it, S (or U) is a whole one. An entity begins at B and S, and at
I and E where no entity of the same type is open; it ends before the next begins, before O, and at E and S. So
conlleval counts (Tjong Kim Sang & De Meulder 2003, https://huggingface.co/papers/cs/0306050), and seqeval after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

OUTSIDE = "O"
BEGINS, ENDS, PREFIXES = frozenset("BSU"), frozenset("ESLU"), frozenset("BIESLU")


def name_entities(names: Sequence[str]) -> bool:
    """Whether all names of classes are O or a prefix and a type, so that they tell entities."""
    inside = [name for name in names if name != OUTSIDE]
    return bool(inside) and all(len(name) > 2 and name[0] in PREFIXES and name[1] == "-" for name in inside)


def entities_of(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Type, first and last word of every entity in the tags of one sentence, in their order."""
    found: list[tuple[str, int, int]] = []
    open_type, start = None, 0
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, kind = tag.partition("-")
        begins = prefix != OUTSIDE and (prefix in BEGINS or open_type != kind)
        if open_type is not None and (prefix == OUTSIDE or begins):
            found.append((open_type, start, index - 1))
            open_type = None
        if begins:
            open_type, start = kind, index
        if prefix != OUTSIDE and prefix in ENDS:
            found.append((open_type, start, index))
            open_type = None
    return found


def entity_counts(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, tuple[int, int, int]]:
    """Of every type: how many entities were found right, found, and are there.

    Args:
        predictions: tags of every sentence.
        references: likewise the true ones.

    Raises:
        ValueError: sentences of different lengths.
    """
    right: Counter[str] = Counter()
    told: Counter[str] = Counter()
    true: Counter[str] = Counter()
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} sentences were predicted, and there are {len(references)}.")
    for index, (answers, labels) in enumerate(zip(predictions, references, strict=True)):
        if len(answers) != len(labels):
            raise ValueError(f"sentence {index} has {len(labels)} words, and {len(answers)} were predicted.")
        ours, theirs = set(entities_of(answers)), set(entities_of(labels))
        told.update(kind for kind, _, _ in ours)
        true.update(kind for kind, _, _ in theirs)
        right.update(kind for kind, _, _ in ours & theirs)
    return {kind: (right[kind], told[kind], true[kind]) for kind in sorted({*told, *true})}


def entity_figures(right: int, told: int, true: int) -> dict[str, float]:
    """Precision, recall and F1; 0 where nothing was found or is there."""
    return {
        "precision": right / told if told else 0.0,
        "recall": right / true if true else 0.0,
        "f1": 2 * right / (told + true) if told + true else 0.0,
    }


def entity_metrics(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, float | dict[str, float]]:
    """`entity_precision`, `entity_recall` and `entity_f1` over all types; under the name of each type its own.

    Arguments and errors as `entity_counts`.
    """
    counts = entity_counts(predictions, references)
    totals = [sum(one[index] for one in counts.values()) for index in range(3)]
    overall = {f"entity_{name}": value for name, value in entity_figures(*totals).items()}
    each = {kind: {**entity_figures(*one), "entities": one[2]} for kind, one in counts.items()}
    return {**overall, **each}
