from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from bulk_models import IDENTITY, LoadTiny
from pictures import write_class_folders
from trustvlm.bulk.job import LocalEngine, run_job


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("bulk") / "shots")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """45 pictures in three folders, two files that are none, and the same in a tar archive."""
    folder = tmp_path_factory.mktemp("bulk")
    photos = write_class_folders(folder / "photos", per_class=15, seed=5)
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (photos / "empty.jpg").write_bytes(b"")
    with tarfile.open(folder / "photos.tar", "w") as archive:
        for file in sorted(photos.rglob("*.*")):
            archive.add(file, file.relative_to(photos).as_posix())
    return photos


@pytest.fixture
def run(shots):
    """Run a job with the tiny model."""

    def run(
        images,
        output,
        *,
        part_size=6,
        batch_size=4,
        identity=IDENTITY,
        engine=None,
        retries=1,
        retry_errors=False,
        **tiny,
    ):
        pytest.importorskip("pyarrow")
        loader = LoadTiny(shots, batch_size=batch_size, **tiny)
        settings = {
            "part_size": part_size,
            "batch_size": batch_size,
            "path_column": "path",
            "image_column": None,
        }
        making = engine or LocalEngine
        job = {"identity": identity, "settings": settings, "retry_errors": retry_errors}
        return run_job(making(loader, retries), images, output, **job)

    return run
