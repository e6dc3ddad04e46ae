"""Scores of the ranking for any features, classes and batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from hf_transfer.ranking import SCORES
from hf_transfer.ranking.registry import score_class
from tests.properties import drawn

OF_PROBABILITIES = ("leep", "nce")
TURNED = ("gbc", "h_score", "knn", "logme", "trans_rate")
"""Read features by their inner products alone, so that a rotation changes nothing."""


@st.composite
def rows(draw) -> tuple[Tensor, Tensor]:
    """Features or probabilities [N, D] and classes [N], of which each has rows."""
    classes, width = draw(st.integers(2, 4)), draw(st.integers(2, 6))
    each = draw(st.integers(4, 10))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    labels = torch.arange(classes).repeat(each)
    shift = draw(st.sampled_from([0.0, 1.0, 5.0])) * torch.randn(classes, width, generator=generator)
    return torch.randn(len(labels), width, generator=generator) + shift[labels], labels


def value(
    name: str, features: Tensor, labels: Tensor, numbers: Tensor | None = None, cuts: Sequence[int] = ()
) -> float:
    """A score of rows that come in batches."""
    score = score_class(name)()
    features = features.softmax(dim=1) if name in OF_PROBABILITIES else features
    numbers = torch.arange(len(labels)) if numbers is None else numbers
    edges = [0, *sorted(set(cuts)), len(labels)]
    for start, end in pairwise(edges):
        score.update(features[start:end], labels[start:end], numbers[start:end])
    return score.compute().value


@pytest.mark.parametrize("name", SCORES)
@drawn
@given(rows(), st.lists(st.integers(1, 39), max_size=3))
def test_batches_do_not_matter(name, made, cuts):
    features, labels = made
    cuts = [cut for cut in cuts if cut < len(labels)]
    assert value(name, features, labels, cuts=cuts) == pytest.approx(value(name, features, labels), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", SCORES)
@drawn
@given(rows(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(name, made, random):
    features, labels = made
    order = list(range(len(labels)))
    random.shuffle(order)
    order = torch.tensor(order)
    found = value(name, features[order], labels[order], numbers=order)
    assert found == pytest.approx(value(name, features, labels), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", SCORES)
@drawn
@given(rows(), st.randoms(use_true_random=False))
def test_the_numbers_of_classes_do_not_matter(name, made, random):
    features, labels = made
    others = list(range(int(labels.max()) + 1))
    random.shuffle(others)
    found = value(name, features, torch.tensor(others)[labels])
    assert found == pytest.approx(value(name, features, labels), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", TURNED)
@drawn
@given(rows(), st.integers(0, 2**32 - 1))
def test_a_rotation_does_not_matter(name, made, seed):
    features, labels = made
    square = torch.randn(features.shape[1], features.shape[1], generator=torch.Generator().manual_seed(seed))
    assume(torch.linalg.matrix_rank(square) == len(square))
    rotation = torch.linalg.qr(square.double()).Q
    found = value(name, features.double() @ rotation, labels)
    assert found == pytest.approx(value(name, features.double(), labels), rel=1e-4, abs=1e-6)
