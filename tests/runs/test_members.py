"""The card of a run that drew on several models says which, how much each counts, and what it costs."""

import re

import pytest
import torch

from hf_transfer.multi_model import HubPathway
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.members import gigaflops, pathway_table
from tests import tiny
from tests.runs.folders import QUICK


def card_of(more: list[str]) -> str:
    argv = ["--model", "vit", "--dataset", "digits", "--test_dataset", "more_digits", "--output_dir", "run", *QUICK]
    run_adaptation(parse_arguments([*argv, *more]))
    with open("run/model/README.md") as file:
        return file.read()


def numbers(card: str, title: str) -> dict[str, float]:
    """Model -> the first number of its row in the table under a title."""
    rows = re.findall(r"^\| `?(\w+)`? \| ([0-9.e-]+) \|", card.split(title)[1].split("\n#")[0], re.MULTILINE)
    return {name: float(value) for name, value in rows}


def test_a_hub_of_pathways(here):
    converters = "{hub_pathway: {checkpoints: [flow], top: 1}}"
    card = card_of(["--converters", converters, "--objectives", "{pathways: {}}"])
    shares = numbers(card, "The models of the hub")
    assert set(shares) == {"vit", "flow"} and sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert "Share of the test rows that each model runs on, 1 a row" in card


def test_mixed_kernels_and_teachers(here):
    objectives = "{b_tuning: {teacher: [flow, vit], weight: 2.0}}"
    card = card_of(["--converters", "{zoo_tuning: {checkpoints: [vit]}}", "--objectives", objectives])
    assert numbers(card, "The models whose kernels are mixed")["vit"] == pytest.approx(0.5, abs=0.1)
    shares = numbers(card, "The teachers")
    assert set(shares) == {"flow", "vit"} and sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert "with weight 2." in card


def test_costs_of_a_hub_are_those_of_the_models_that_run():
    torch.manual_seed(0)
    hub = HubPathway.of([tiny.vit(), tiny.resnet()], top=1).eval()
    with torch.no_grad():
        hub.hub.generator.scores.bias[:2] = torch.tensor([0.0, 100.0])
    batches = [{"pixel_values": torch.randn(4, 1, 14, 14), "labels": torch.arange(4)}] * 2
    table = pathway_table(hub, batches, "test")
    (_, first, vit), (_, second, resnet) = table.rows
    assert (first, second) == (0.0, 1.0) and vit != resnet
    rest = gigaflops(hub.hub.generator, {"inputs": batches[0]}) + 2e-9 * hub.classifier.weight.numel() * 4
    assert gigaflops(hub, batches[0]) == pytest.approx(4 * resnet + rest, rel=1e-6)
