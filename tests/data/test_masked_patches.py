import pytest
import torch
from transformers import (
    ViTConfig,
    ViTForMaskedImageModeling,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    default_data_collator,
)

from hf_transfer.data.masked_patches import PatchMaskCollator, with_patch_masks
from hf_transfer.data.visits import VISIT_COLUMN, Visit
from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForMaskedImageModeling
from hf_transfer.training.family_trainers import PretrainingTrainer
from hf_transfer.training.trainer import TransferConfig
from tests import tiny

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
PIXELS = {"image_size": 14, "patch_size": 2, "num_channels": 1}
DECODER = {f"decoder_{name}": value for name, value in SIZES.items()}


def vit_mae(**changes):
    return ViTMAEForPreTraining(ViTMAEConfig(**SIZES, **PIXELS, **DECODER, **changes))


def flowformer(**changes):
    config = FlowformerConfig(modality="image", **SIZES, **PIXELS, **DECODER, **changes)
    return FlowformerForMaskedImageModeling(config)


def simmim():
    return ViTForMaskedImageModeling(ViTConfig(**SIZES, **PIXELS, encoder_stride=2))


MODELS = {"vit_mae": vit_mae, "flowformer": flowformer, "simmim": simmim}


def trainer(folder, digits, model, **changes) -> PretrainingTrainer:
    fields = {"max_steps": 4, "per_device_train_batch_size": 8, "save_strategy": "no", "learning_rate": 1e-2}
    args = TransferConfig(str(folder), **{**fields, "report_to": [], "disable_tqdm": True, "use_cpu": True, **changes})
    rows = digits.remove_columns("labels")
    return PretrainingTrainer(model, args, train_dataset=rows, eval_dataset=rows.select(range(24)))


@pytest.mark.parametrize("kind", MODELS)
def test_every_evaluation_hides_the_same_patches(tmp_path, digits, kind):
    torch.manual_seed(0)
    made = trainer(tmp_path, digits, MODELS[kind]())
    first = made.evaluate()["eval_loss"]
    torch.rand(7)
    assert made.evaluate()["eval_loss"] == first
    made.args.per_device_eval_batch_size = 5
    assert made.evaluate()["eval_loss"] == pytest.approx(first, rel=1e-2)
    assert trainer(tmp_path, digits, made.adapted_model, seed=1).evaluate()["eval_loss"] != first


@pytest.mark.parametrize("kind", MODELS)
def test_it_trains_and_resumes_exactly(tmp_path, digits, kind):
    torch.manual_seed(0)
    straight = trainer(tmp_path, digits, MODELS[kind](), save_strategy="steps", save_steps=2)
    before = straight.evaluate()["eval_loss"]
    straight.train()
    assert straight.evaluate()["eval_loss"] < before
    resumed = trainer(tmp_path, digits, MODELS[kind]())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    state = resumed.transfer_model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in straight.transfer_model.state_dict().items())


def test_row_epoch_and_seed_decide_and_nothing_else(digits):
    rows = [digits[place] for place in range(4)]

    def noise(places, epoch=None, seed=0):
        collator = PatchMaskCollator(default_data_collator, (2, 2), seed=seed)
        visit = {} if epoch is None else {VISIT_COLUMN: Visit(0, epoch, 0)}
        return collator([{**rows[place], **visit} for place in places])["noise"]

    whole = noise(range(4))
    torch.rand(2)
    assert whole.shape == (4, 49) and torch.equal(noise([2, 3]), whole[2:])
    assert not torch.equal(noise(range(4), seed=1), whole)
    assert torch.equal(noise([0], epoch=1), noise([3], epoch=1))
    distinct = [whole, noise([0], epoch=0), noise([0], epoch=1), noise([0], epoch=0, seed=1)]
    assert len(torch.cat(distinct).unique(dim=0)) == 7


@pytest.mark.parametrize(("kind", "column", "hidden"), [("vit_mae", "noise", 37), ("simmim", "bool_masked_pos", 29)])
def test_a_model_gets_what_it_takes(digits, kind, column, hidden):
    """75 % of 49 patches, as a masked autoencoder counts them, or 60 %."""
    model = MODELS[kind]()
    collator = with_patch_masks(default_data_collator, model, 0)
    batch = collator([{"pixel_values": digits[place]["pixel_values"]} for place in range(3)])
    assert batch.keys() == {"pixel_values", column} and collator == with_patch_masks(collator, model, 0)
    found = batch[column] if kind == "simmim" else model(**batch).mask
    assert found.sum(dim=1).tolist() == [hidden] * 3
    given = PatchMaskCollator(lambda rows: {**batch, column: 5}, (2, 2), column)
    assert given([{}] * 3)[column] == 5, "what a collator of one's own draws stays"


@pytest.mark.parametrize("model", [tiny.vit, tiny.bert, lambda: tiny.flowformer().flowformer])
def test_other_models_keep_their_collator(model):
    assert with_patch_masks(default_data_collator, model(), 0) is default_data_collator


@pytest.mark.parametrize("make", [vit_mae, flowformer])
def test_pixels_are_normalised_patch_by_patch_on_request(digits, make):
    pixels = tiny.batch_of(digits, 4)["pixel_values"] + 0.1 * torch.randn(4, 1, 14, 14)
    model = make(norm_pix_loss=True).eval()
    outputs = model(pixel_values=pixels, noise=torch.rand(4, 49, generator=torch.Generator().manual_seed(0)))
    errors = []
    for image, guess, mask in zip(pixels, outputs.logits, outputs.mask):
        for number in range(49):
            row, column = divmod(number, 7)
            patch = image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].permute(1, 2, 0).flatten()
            if mask[number]:
                target = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
                errors.append(((guess[number] - target) ** 2).mean())
    torch.testing.assert_close(outputs.loss, sum(errors) / len(errors))


def test_views_go_together_with_the_masks(tmp_path, digits):
    made = trainer(tmp_path, digits, vit_mae(), augmentation={"views": "mae", "flip": False})
    batch = next(iter(made.get_train_dataloader()))
    assert batch.keys() == {"pixel_values", "noise"} and batch["noise"].shape == (8, 49)
    plain = next(iter(trainer(tmp_path, digits, vit_mae()).get_train_dataloader()))
    assert torch.equal(batch["noise"], plain["noise"])
    assert not torch.equal(batch["pixel_values"], plain["pixel_values"])
