"""The matrix: what every registered objective can do on a small image model. A new method gets its rows for free."""

import inspect
import math

import pytest
import torch
from transformers import AutoModelForImageClassification, default_data_collator

from hf_transfer.core.objective import AlternatingObjective
from hf_transfer.core.task_loss import ANY_PROBLEM, MULTI_LABEL, REGRESSION, SINGLE_LABEL
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.training.alternating_trainer import AlternatingTrainer
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from hf_transfer.training.transfer_model import REGISTRY, objective_class
from tests import tiny
from tests.marks import slow

STEPS, STOP, BATCH = 2, 1, 8
OF_MAPS = {"advent", "dacs", "regda", "unbiased_teacher"}
IMAGE_METHODS = sorted(set(REGISTRY) - {"siatl", "clip", "siglip", "pathways", "knowledge_flow"} - OF_MAPS)
"""All but those of texts, of maps of pixels, of image-text pairs and of models that a converter makes of several; they
have rows of their own in their tests."""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """The folder of the pre-trained model that every method starts from."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    tiny.vit().save_pretrained(folder)
    return str(folder)


LABELS = {
    SINGLE_LABEL: lambda digit: digit,
    MULTI_LABEL: lambda digit: [digit % 2, int(digit > 4), int(digit == 0)],
    REGRESSION: lambda digit: digit,  # whole numbers
}
"""What the label of a digit is, by the problem type."""
HEADS = {
    SINGLE_LABEL: {},
    MULTI_LABEL: {"num_labels": 3, "ignore_mismatched_sizes": True},
    REGRESSION: {"num_labels": 1, "ignore_mismatched_sizes": True},
}


def problem_of(cls) -> str:
    """The problem type that a method is tried on in every row of the matrix."""
    return SINGLE_LABEL if SINGLE_LABEL in cls.tasks else REGRESSION


@pytest.fixture(scope="module")
def rows_for(digits):
    """24 real digits (three batches) as an objective needs them, by its class and the problem type."""
    rows = digits.select(range(24))
    for column in ("parity", "size"):
        rows = tiny.with_column(rows, column, [digit % 2 for digit in rows.with_format(None)["labels"]])

    def choose(cls, problem_type):
        labels = [LABELS[problem_type](digit) for digit in rows.with_format(None)["labels"]]
        ready = tiny.with_column(rows, "labels", labels)
        if "environments" in cls.needs:
            return tiny.with_column(ready, "domain", [0, 1] * 12)
        return tiny.two_domains(ready) if "domain" in cls.needs else ready

    return choose


def with_second_view(features: list[dict]) -> dict[str, torch.Tensor]:
    """An augmented copy of every image beside it."""
    batch = default_data_collator(features)
    return {**batch, "view_pixel_values": batch["pixel_values"].flip(-1) + 0.1}


def keywords_for(name: str, base: str, problem_type: str | None = None) -> dict:
    """The defaults, but small networks and few samples, and the pre-trained model where one is asked for."""
    accepted = inspect.signature(objective_class(name)).parameters
    small = {"hidden_size": 8, "samples": 4, "source_head": base, "width": 4, "blocks": 1, "buffer_size": 4}
    small |= {"ways": 2 if problem_type == MULTI_LABEL else 4, "shots": 1, "queries": 1, "episodes_per_batch": 1}
    small |= {"columns": {"parity": 2, "size": "regression"}, "queue_size": 16, "projection_dim": 8, "directions": 8}
    given = {keyword: value for keyword, value in small.items() if keyword in accepted}
    if "ranking" in accepted or ("teacher" in accepted and accepted["teacher"].default is inspect.Parameter.empty):
        is_alike = problem_type in (None, SINGLE_LABEL)
        given["teacher"] = base if is_alike else image_model(base, problem_type)
    return given


def image_model(base: str, problem_type: str):
    """The pre-trained model with a head for labels of this kind."""
    return AutoModelForImageClassification.from_pretrained(base, **HEADS[problem_type])


def make(
    name: str, folder, base: str, rows_for, *, lora: bool = False, problem_type: str | None = None, **changes
) -> TransferTrainer:
    torch.manual_seed(0)
    cls = objective_class(name)
    problem_type = problem_type or problem_of(cls)
    model = image_model(base, problem_type)
    args = TransferConfig(
        output_dir=str(folder),
        objectives={name: keywords_for(name, base, problem_type)},
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-3,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **{"save_strategy": "no", **changes},
    )
    family = AlternatingTrainer if issubclass(cls, AlternatingObjective) else TransferTrainer
    return family(
        tiny.with_lora(model) if lora else model,
        args,
        train_dataset=rows_for(cls, problem_type),
        data_collator=with_second_view if "views" in cls.needs else default_data_collator,
    )


def assert_learned(trainer: TransferTrainer, name: str) -> None:
    """Every step had a finite loss with the method's term in it, and a gradient."""
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == STEPS
    for log in logs:
        terms = [value for term, value in log.items() if term == f"loss_{name}" or term.startswith(f"loss_{name}_")]
        assert terms and all(map(math.isfinite, [log["loss"], *terms]))
        assert math.isfinite(log["grad_norm"]) and log["grad_norm"] > 0


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_it_trains_resumes_exactly_and_saves_a_model(name, tmp_path, base, rows_for, digits):
    straight = make(name, tmp_path, base, rows_for, save_strategy="steps", save_steps=STOP)
    straight.train()
    assert_learned(straight, name)

    resumed = make(name, tmp_path, base, rows_for)
    with torch.no_grad():
        for parameter in resumed.transfer_model.parameters():
            parameter.add_(1.0)  # whatever is not restored shows
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{STOP}"))
    state = resumed.transfer_model.state_dict()
    for key, value in straight.transfer_model.state_dict().items():
        assert torch.equal(value, state[key]), f"{key} differs after resuming"

    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / f"checkpoint-{STEPS}").eval()
    pixels = tiny.batch_of(digits)["pixel_values"]
    assert torch.equal(loaded(pixels).logits, straight.adapted_model.eval()(pixels).logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_it_trains_in_bf16(name, tmp_path, base, rows_for):
    """Losses, gradients and weights stay finite under autocast, also of methods that take logarithms and roots."""
    trainer = make(name, tmp_path, base, rows_for, bf16=True)
    trainer.train()
    assert_learned(trainer, name)
    assert all(torch.isfinite(weight).all() for weight in trainer.transfer_model.parameters())


@pytest.mark.parametrize(
    "name", [name if number % 6 == 0 else slow(name) for number, name in enumerate(IMAGE_METHODS)]
)
def test_it_composes_with_lora(name, tmp_path, base, rows_for, digits):
    trainer = make(name, tmp_path, base, rows_for, lora=True)
    start = {key: value.clone() for key, value in unwrap_peft(trainer.adapted_model).named_parameters()}
    trainer.train()
    assert_learned(trainer, name)
    for key, value in unwrap_peft(trainer.adapted_model).named_parameters():
        if not value.requires_grad:
            assert torch.equal(value, start[key]), f"{key} is frozen and moved"
    trainer.save_model(tmp_path / "adapter")
    head = HEADS[problem_of(objective_class(name))]
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "adapter", **head).eval()
    pixels = tiny.batch_of(digits)["pixel_values"]
    expected = trainer.adapted_model.eval()(pixel_values=pixels).logits
    torch.testing.assert_close(loaded(pixels).logits, expected)


@pytest.mark.parametrize("problem_type", [MULTI_LABEL, REGRESSION])
@pytest.mark.parametrize("name", [one if one in IMAGE_METHODS[1::4] else slow(one) for one in IMAGE_METHODS])
def test_several_labels_and_numbers_train_or_are_refused(name, problem_type, tmp_path, base, rows_for):
    """Labels are whole numbers of either kind, and no configuration says which it is."""
    if problem_type not in objective_class(name).tasks:
        with pytest.raises(
            ValueError, match=rf"`{name}` is defined for .*, and this is {problem_type}.*Defined for it: .*l2_sp"
        ):
            make(name, tmp_path, base, rows_for, problem_type=problem_type)
        return
    trainer = make(name, tmp_path, base, rows_for, problem_type=problem_type)
    trainer.train()
    assert_learned(trainer, name)
    assert trainer.adapted_model.config.problem_type == problem_type


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_objective_says_what_it_is_defined_for(name):
    """In its own words, not by the default of objectives that nobody thought about."""
    cls = objective_class(name)
    assert "tasks" in vars(cls) and cls.tasks and cls.tasks <= ANY_PROBLEM
