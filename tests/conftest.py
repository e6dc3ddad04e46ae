"""What every test runs under: few threads, no network, and a real Hub server on this machine for those that ask.

huggingface_hub reads HF_ENDPOINT and HF_HUB_OFFLINE once, when it is first imported, so both are settled here, before
anything imports it: the endpoint is the port our own server will listen on, and the Hub is switched off. A test that
asks for the `hub` fixture gets the running server and the switch turned on for its own duration; every other test
fails at once, instead of retrying for half a minute, if it reaches for the Hub.
"""

import gc
import os
import shutil
import tempfile
from pathlib import Path

from tests.hub_server import HubServer

_HOME = Path(tempfile.mkdtemp(prefix="hf_transfer-tests-"))
_SERVER = HubServer(_HOME / "server")  # bound to its port, but it answers nobody before it is started

os.environ.update(
    HF_HOME=str(_HOME / "home"),
    HF_ENDPOINT=_SERVER.endpoint,
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_XET="1",  # with Xet every upload first asks for a token of a service that our server is not
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    DISABLE_SAFETENSORS_CONVERSION="1",
    NO_PROXY="127.0.0.1",
    no_proxy="127.0.0.1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)
os.environ.pop("HF_TOKEN", None)
os.environ.pop("HF_HUB_CACHE", None)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait slow every other process down

import matplotlib.figure  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

SAVEFIG = matplotlib.figure.Figure.savefig

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_unconfigure() -> None:
    _SERVER.stop()
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def hub_server() -> HubServer:
    """The Hub server of this test session, running."""
    _SERVER.start()
    return _SERVER


@pytest.fixture
def hub(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A Hub without repositories or faults, reachable by this process with the token of its user."""
    from huggingface_hub import constants

    assert hub_server.endpoint == constants.ENDPOINT, "huggingface_hub was imported before tests/conftest.py"
    hub_server.reset()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # PEFT asks the environment
    monkeypatch.setenv("HF_TOKEN", hub_server.token)
    return hub_server


@pytest.fixture(scope="session")
def digits():
    """64 real handwritten digits: `pixel_values` [1, 14, 14] and `labels`."""
    from tests import tiny

    return tiny.digit_rows(0, 64)


@pytest.fixture(scope="session")
def digit_domains(digits):
    """32 labelled source digits and 32 unlabelled target digits in one dataset with a `domain` column."""
    from tests import tiny

    return tiny.two_domains(digits)


@pytest.fixture(scope="session")
def sentences():
    """24 real sentences from three books: `input_ids`, `attention_mask` and `labels`."""
    from tests import tiny

    return tiny.text_rows()


@pytest.fixture(scope="session", autouse=True)
def frozen_heap():
    """accelerate collects garbage at the start of every training; what was imported need not be walked each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def little_drawn_and_fitted():
    """Figures are blank, and hypotheses of validators are fitted in few steps: both take longer than tiny models to
    train. A test that looks at them asks for `drawn` or `fitted`.
    """
    from hf_transfer.functional import hypotheses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "matplotlib.figure.Figure.savefig", lambda figure, path, **_: Image.new("L", (200, 200)).save(path)
        )
        patch.setattr(hypotheses, "STEPS", 5)
        yield


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", SAVEFIG)


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypotheses are fitted as long as a user's."""
    from hf_transfer.functional import hypotheses

    monkeypatch.setattr(hypotheses, "STEPS", 200)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny saved models and data. Models: `vit` and `flow` (10 classes), `three` (a ViT of 3 classes),
    `headless`, `bert`, `gpt2`; data: `digits`, `more_digits`, `books.csv`. Not to be written to.
    """
    from tests.runs import folders

    return folders.fill(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def here(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, in which the workshop's models and data have their bare names."""
    for item in workshop.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)
    return tmp_path
