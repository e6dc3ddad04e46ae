"""Tests of hf_transfer.hub, most of them over real HTTP."""
