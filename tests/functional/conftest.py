"""The views of the tests of domain adaptation."""

from tests.domain_adaptation.conftest import make_view, sources  # noqa: F401
