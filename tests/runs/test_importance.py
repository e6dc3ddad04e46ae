"""Domain adaptive transfer from the arguments on: the classifier, the weights, the rows that are drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForImageClassification

from hf_transfer.data.images import image_processor
from hf_transfer.data.samplers import WeightedSampler
from hf_transfer.pretraining.dat import dat_weights
from hf_transfer.runs.adapt import run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.single_run import make_adaptation
from tests.runs.folders import QUICK

DAT = "{classifier: vit, target: more_digits}"
RUN = ["--model", "vit", "--dataset", "digits", "--test_rows", "20", "--output_dir", "out", *QUICK]


def trainer_of(*argv: str):
    return make_adaptation(parse_arguments([*RUN, *argv]))[0]


def test_rows_are_drawn_as_the_classifier_sees_the_target(here):
    trainer = trainer_of("--dat", DAT)
    rows = trainer.train_dataset
    labels = torch.tensor(rows.with_format(None)["labels"])
    weights = np.asarray(rows.with_format(None)["sampling_weight"])
    target = make_adaptation(parse_arguments([*RUN, "--dataset", "more_digits", "--test_rows", "0"]))[0].train_dataset
    model = AutoModelForImageClassification.from_pretrained("vit").eval()
    with torch.no_grad():
        seen = model(target[:]["pixel_values"]).logits.softmax(dim=1)
    np.testing.assert_allclose(weights, dat_weights(seen, labels).of_rows(labels).numpy(), rtol=1e-4)
    assert weights.min() < 0.95 < 1.05 < weights.max()
    batches = list(trainer.get_train_dataloader())
    assert all(batch.keys() == {"pixel_values", "labels"} for batch in batches)
    drawn = torch.cat([batch["labels"] for batch in batches])
    expected = labels[list(WeightedSampler(weights, seed=trainer.args.seed))]
    assert torch.equal(drawn, expected) and not torch.equal(drawn.sort().values, labels.sort().values)


def test_classes_are_matched_by_name(here):
    """The same classifier with its outputs in another order gives the same weights."""
    torch.manual_seed(0)
    weights = []
    for name, order in (("plain", range(10)), ("turned", range(9, -1, -1))):
        model = AutoModelForImageClassification.from_pretrained("vit")
        model.classifier.weight.data.mul_(20)
        model.classifier.weight.data = model.classifier.weight.data[list(order)]
        model.classifier.bias.data = model.classifier.bias.data[list(order)]
        model.config.id2label = {place: str(digit) for place, digit in enumerate(order)}
        model.config.label2id = {str(digit): place for place, digit in enumerate(order)}
        model.save_pretrained(name)
        image_processor(14, num_channels=1).save_pretrained(name)
        weights.append(trainer_of("--dat", f"{{classifier: {name}, target: more_digits}}").train_dataset)
    first, second = (rows.with_format(None)["sampling_weight"] for rows in weights)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    assert max(first) > 1.5


def test_augmented_rows_are_drawn_so_too(here):
    batches = list(trainer_of("--dat", DAT, "--augmentation", "{}").get_train_dataloader())
    plain = list(trainer_of("--dat", DAT).get_train_dataloader())
    assert all(torch.equal(one["labels"], other["labels"]) for one, other in zip(batches, plain, strict=True))
    assert not torch.equal(batches[0]["pixel_values"], plain[0]["pixel_values"])


def test_it_resumes_exactly(here):
    every = ["--save_strategy", "steps", "--save_steps", "2", "--max_steps", "4", "--dat", DAT]
    straight = trainer_of(*every)
    straight.train()
    resumed = trainer_of(*every, "--overwrite")
    resumed.train(resume_from_checkpoint="out/checkpoint-2")
    state = resumed.transfer_model.state_dict()
    for key, value in straight.transfer_model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_the_card_names_it(here):
    run_pretraining(parse_arguments([*RUN, "--dat", "{classifier: vit, target: more_digits, max_weight: 3}"]))
    card = ModelCard.load("out/model/README.md").text
    assert "| DAT | [arXiv:1811.07056]" in card and "`max_weight=3`" in card and "`target=more_digits`" in card


@pytest.mark.parametrize(
    "words, message",
    [
        (["--dat", "{classifier: vit}"], r"`dat` has no \[\] and lacks \['target'\]"),
        (["--dat", "{classifier: vit, target: digits, clip: 3}"], r"`dat` has no \['clip'\]"),
        (
            ["--dat", "{classifier: three, target: digits}"],
            "the classifier `three` tells .* and the training rows have",
        ),
        (["--dat", "{classifier: nowhere, target: digits}"], "cannot load `nowhere`"),
        (["--dat", DAT, "--target_dataset", "more_digits"], "`dat`.*training on labelled rows of one domain"),
        (["--dat", "{classifier: vit, target: digits, max_weight: -1}"], "`max_weight` should be positive"),
    ],
)
def test_what_is_refused_before_training(here, words, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(*words)
    assert not list(Path("out").glob("checkpoint-*"))
