"""One process: nothing is gathered. Two real processes are in tests/test_distributed.py."""

import torch
import torch.distributed as dist

from hf_transfer.functional.processes import from_all, has_several


def test_alone_the_rows_are_returned_as_they_are():
    rows = torch.randn(3, 2)
    assert not has_several()
    assert from_all(rows) is rows


def test_a_group_of_one_is_alone(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        rows = torch.randn(3, 2)
        assert not has_several()
        assert from_all(rows) is rows
    finally:
        dist.destroy_process_group()
