"""The views and models of the tests of domain adaptation."""

from tests.domain_adaptation.conftest import (  # noqa: F401
    lora_on_the_head,
    make_view,
    make_view_pair,
    sines,
    sources,
    tiny_model,
)
