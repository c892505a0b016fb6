"""The demonstration's pictures: cut apart where claimed, readable, and the same every time."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trustvlm.demo import DemoPictures, credits, write_pictures
from trustvlm.demo.pictures import CLEAN, CORRUPTIONS, Crop, corrupt, plan
from trustvlm.demo.sources import Region, read_classes, read_photographs
from trustvlm.exceptions import InputError, MissingExtraError
from trustvlm.images import content_hash, decode, find_images, find_labelled

SKIMAGE = pytest.importorskip("skimage", reason="the photographs are in scikit-image's wheel")
DATA = Path(SKIMAGE.__file__).parent / "data"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DemoPictures:
    return write_pictures(tmp_path_factory.mktemp("demo") / "pictures")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_no_shot_shares_a_pixel_with_any_test_crop() -> None:
    shots, tests = plan()
    shared = [(s, t) for s in shots for t in tests if s.region.intersects(t.region)]
    assert shared == []


def test_crops_lie_inside_the_regions_of_their_class_and_inside_the_photograph() -> None:
    shots, tests = plan()
    sizes = {}
    for photograph in read_photographs():
        with Image.open(DATA / photograph.file) as image:
            sizes[photograph.file] = image.size
    by_folder = {one.folder: one for one in read_classes()}

    def inside(crop: Crop, regions: tuple[Region, ...]) -> bool:
        r = crop.region
        return any(
            r.file == a.file
            and a.left <= r.left < r.right <= a.right
            and a.top <= r.top < r.bottom <= a.bottom
            for a in regions
        )

    assert all(inside(crop, by_folder[crop.label].shots) for crop in shots)
    assert all(inside(crop, by_folder[crop.label].tests) for crop in tests)
    for crop in shots + tests:
        width, height = sizes[crop.region.file]
        assert crop.region.left >= 0
        assert crop.region.top >= 0
        assert crop.region.right <= width
        assert crop.region.bottom <= height


def test_counts_are_as_announced(pictures: DemoPictures) -> None:
    assert len(find_images(pictures.shots)) == pictures.n_shots
    assert len(find_images(pictures.photos)) == pictures.n_photos
    assert 14 <= len(pictures.classes) <= 18
    per_class = Counter(ref.label for ref in find_labelled(pictures.shots).refs)
    assert set(per_class) == set(pictures.classes)
    assert len(set(per_class.values())) == 1


def test_labels_are_read_by_the_public_reader(pictures: DemoPictures) -> None:
    labelled = find_labelled(pictures.labels)
    assert {ref.path for ref in labelled.refs} == {
        f"photos/{path.name}" for path in pictures.photos.iterdir()
    }
    assert set(labelled.classes) == set(pictures.classes)
    with pictures.labels.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "corruption"]
    assert {row["corruption"] for row in rows} == {CLEAN, *CORRUPTIONS}


def test_file_names_of_the_photos_do_not_follow_the_classes(pictures: DemoPictures) -> None:
    labels = [ref.label for ref in find_labelled(pictures.labels).refs]
    neighbours = sum(a == b for a, b in pairwise(labels))
    assert neighbours < len(labels) / 4


def test_every_picture_decodes_and_none_is_there_twice(pictures: DemoPictures) -> None:
    files = files_of(pictures.labels.parent)
    contents = [content for name, content in files.items() if name.endswith(".jpg")]
    for content in contents:
        image = decode(content)
        assert image.mode == "RGB"
        assert min(image.size) >= 40
    assert len({content_hash(content) for content in contents}) == len(contents)
    assert sum(map(len, files.values())) < 5_000_000


def test_a_second_call_writes_the_same_bytes(pictures: DemoPictures, tmp_path: Path) -> None:
    assert files_of(write_pictures(tmp_path).shots) == files_of(pictures.shots)
    before = files_of(tmp_path)
    write_pictures(tmp_path)
    assert files_of(tmp_path) == before == files_of(pictures.labels.parent)


def test_foreign_pictures_are_neither_mixed_in_nor_removed(tmp_path: Path) -> None:
    mine = tmp_path / "photos" / "holiday.jpg"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"holiday\.jpg"):
        write_pictures(tmp_path)
    assert files_of(tmp_path) == {"photos/holiday.jpg": b"precious"}


def test_what_no_reader_takes_for_a_picture_does_not_stop_a_second_call(
    pictures: DemoPictures, tmp_path: Path
) -> None:
    write_pictures(tmp_path)
    left = ["photos/.DS_Store", "shots/cat/.1.jpg.k3x.tmp.jpg", "shots/Thumbs.db"]
    for name in left:
        (tmp_path / name).write_bytes(b"left over")
    again = write_pictures(tmp_path)
    assert len(find_images(again.photos)) == pictures.n_photos
    assert len(find_images(again.shots)) == pictures.n_shots
    assert all((tmp_path / name).read_bytes() == b"left over" for name in left)


def test_without_scikit_image_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*'trustvlm\[demo\]'"):
        write_pictures(tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_a_photograph_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SKIMAGE, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(InputError, match=r"astronaut\.png"):
        write_pictures(tmp_path / "pictures")


def test_the_downloading_part_of_scikit_image_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("skimage.data")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skimage.data._fetchers", None)
    write_pictures(tmp_path)


@pytest.mark.parametrize("corruption", sorted(CORRUPTIONS))
def test_a_corruption_changes_the_picture_and_keeps_its_size(corruption: str) -> None:
    with Image.open(DATA / "coffee.png") as file:
        image = file.convert("RGB").crop((150, 20, 400, 220))
    before = np.asarray(image).copy()
    spoilt = corrupt(image, corruption, np.random.default_rng(3))
    assert spoilt.mode == "RGB"
    assert spoilt.size == image.size
    assert np.abs(np.asarray(spoilt, float) - before).mean() > 3
    assert np.array_equal(np.asarray(image), before)
    again = corrupt(image, corruption, np.random.default_rng(3))
    assert np.array_equal(np.asarray(again), np.asarray(spoilt))


def test_every_photograph_used_is_credited_with_a_free_licence() -> None:
    used = {region.file for one in read_classes() for region in one.shots + one.tests}
    assert used == {photograph.file for photograph in read_photographs()}
    free = {
        "CC0",
        "public domain",
        "no known copyright restrictions",
        "use and publication permitted, citation requested",
    }
    assert {photograph.licence for photograph in read_photographs()} <= free
    assert [line.split(":")[0] for line in credits()] == [p.file for p in read_photographs()]
