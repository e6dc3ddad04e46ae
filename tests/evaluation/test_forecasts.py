"""Errors of forecasts, counted by hand."""

import numpy as np
import pytest

from hf_transfer.evaluation.forecasts import forecast_metrics


def test_errors_counted_by_hand():
    past = np.array([[[0.0], [1.0], [3.0]], [[2.0], [2.0], [2.0]]])  # moves by 1.5 a step; not at all
    labels = np.array([[4.0, 5.0], [1.0, 1.0]])
    answers = np.array([[4.0, 2.0], [0.0, 2.0]])
    found = forecast_metrics(answers, labels, past)
    assert found["mean_squared_error"] == (9 + 1 + 1) / 4 and found["mean_absolute_error"] == 5 / 4
    assert found["mean_absolute_scaled_error"] == pytest.approx(1.5 / 1.5)
    assert forecast_metrics(answers[1:], labels[1:], past[1:]).keys() == {"mean_squared_error", "mean_absolute_error"}


def test_every_channel_has_its_own_scale():
    past = np.array([[[0.0, 0.0], [1.0, 10.0]]])
    labels, answers = np.zeros((1, 4)), np.array([[1.0, 10.0, 3.0, 30.0]])  # steps of two channels
    assert forecast_metrics(answers, labels, past)["mean_absolute_scaled_error"] == 2.0


def test_rows_without_labels_have_no_part():
    labels = np.array([[-100.0, -100.0], [1.0, 1.0]])
    assert forecast_metrics(np.ones((2, 2)), labels)["mean_squared_error"] == 0.0
    assert forecast_metrics(np.ones((1, 2)), labels[:1]) == {}
