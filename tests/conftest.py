"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

# Files of tests run side by side, on matrices that are small: the threads of linear algebra would
# wait for each other most of the time. NumPy reads this when it is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# Machines are noisy: how long an example takes says nothing here.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


# Shells let what they run in the background ignore interrupts; tests send some, also to processes
# that inherit this.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that reads the real image sets; begin with files that take long.

    Of files that run side by side, a long one that comes last would leave cores idle.
    """
    for item in items:
        if "data_root" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real image sets."""
    named = os.environ.get("TRUSTVLM_TEST_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (root / "imagenette").is_dir():
        pytest.skip(f"no image sets at {root}; TRUSTVLM_TEST_DATA names their folder")
    return root


@pytest.fixture(scope="session")
def embeddings_root(data_root: Path) -> Path:
    """Folder of ready-made embeddings of the image sets."""
    root = data_root.parent / "embeddings"
    if not root.is_dir():
        pytest.skip(f"no ready-made embeddings at {root}")
    return root


@pytest.fixture(scope="session")
def clip_embeddings_root(data_root: Path) -> Path:
    """Folder of ready-made embeddings of real CLIP models."""
    root = data_root.parent / "embeddings_clip"
    if not root.is_dir():
        pytest.skip(f"no embeddings of CLIP at {root}")
    return root


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache, and the user's cache out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUSTVLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server of S3 on this machine; processes find it by their environment."""
    pytest.importorskip("s3fs", reason="needs the extra s3-server")
    moto = pytest.importorskip("moto.server", reason="needs the extra s3-server")
    logging.getLogger("werkzeug").setLevel("ERROR")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTOFTRUSTVLM")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str) -> Iterator[str]:
    """The URL of a new bucket."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    files, name = s3fs.S3FileSystem(), f"trustvlm-{os.urandom(4).hex()}"
    files.mkdir(name)
    yield f"s3://{name}"
    files.invalidate_cache()
    files.rm(name, recursive=True)


@pytest.fixture(scope="session")
def odd_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A fitted model of mean colours, and the file of its encoder backend, which registers once."""
    import odd_inputs

    return odd_inputs.make_model(tmp_path_factory.mktemp("odd"))
