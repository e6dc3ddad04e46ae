"""Two real processes compare the pairs of both."""

import pytest
import torch

from hf_transfer.pretraining.clip import CLIP
from hf_transfer.training.transfer_model import TransferModel
from tests.pretraining import pair_processes, pairs
from tests.processes import TWO, run_module


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes found with its part of the rows."""
    folder = tmp_path_factory.mktemp("two")
    run_module("tests.pretraining.pair_processes", str(folder), launcher=TWO, GLOO_SOCKET_IFNAME="lo")
    return [torch.load(folder / f"rank_{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    """What one process found with all rows."""
    return pair_processes.run_all(None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip_even", "clip_uneven", "siglip_even", "siglip_uneven"])
def test_two_processes_equal_one_of_the_joined_batch(two, alone, name):
    alone = alone[name]
    assert len(alone) > 30
    for found in two:
        assert found[name].keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(found[name][key], value, rtol=1e-4, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}")


def test_the_model_must_give_both_embeddings():
    model = pairs.dual_encoder()
    forward = model.forward
    model.forward = lambda *args, **kwargs: {"logits": torch.zeros(6, 2), "image_embeds": forward(**kwargs)[3]}
    wrapped = TransferModel(model, {"clip": CLIP()}, "nothing").train()
    with pytest.raises(ValueError, match=r"the model gives no \['text_embeds'\]"):
        wrapped(**pairs.batch_of())


def test_no_other_output_is_kept():
    """The similarities [B, B] of each process are nobody's business."""
    seen = {}

    class Looking(CLIP):
        def forward(self, view):
            seen.update(view.outputs)
            return super().forward(view)

    TransferModel(pairs.dual_encoder(), {"clip": Looking()}, "nothing").train()(**pairs.batch_of())
    assert seen.keys() == {"image_embeds", "text_embeds"}
