"""Labels in archives and lists beside images: each stays with its own, and none is lost."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from pictures import COLOURS, picture
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import decode, find_labelled, open_images
from trustvlm.images.locations import expand

NAMES = list(COLOURS)
# In an order in which neither sorting nor a shift by one leaves the labels where they were.
LABELS = ["blue", "red", "red", "green", "blue", "green", "red", "blue", "green", "green"]


def png(label, seed=0):
    stream = io.BytesIO()
    picture(COLOURS[label], seed).save(stream, format="PNG")
    return stream.getvalue()


def write_tar(file, members, mode="w"):
    with tarfile.open(file, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def write_zip(file, members):
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file


WRITERS = {"tar": write_tar, "zip": write_zip}


def samples(labels=LABELS, *, ending="cls", text=str, start=0):
    """Members as WebDataset packs them: the image, then its label."""
    for i, label in enumerate(labels, start=start):
        yield f"{i:04d}.png", png(label, i)
        yield f"{i:04d}.{ending}", text(label).encode()


def colour_of(image):
    mean = np.asarray(decode(image.read())).reshape(-1, 3).mean(axis=0)
    return min(COLOURS, key=lambda name: np.abs(mean - COLOURS[name]).sum())


def check(source, labels=LABELS, **columns):
    listed = find_labelled(source, **columns)
    assert listed.labels == labels
    assert [colour_of(image) for image in listed.refs] == labels
    return listed


# Labels beside images, as WebDataset has them.


@pytest.mark.parametrize("kind", WRITERS)
def test_labels_in_cls_members(kind, tmp_path):
    listed = check(WRITERS[kind](tmp_path / f"a.{kind}", samples()))
    assert [image.path for image in listed.refs][:2] == ["0000.png", "0001.png"]
    assert listed.classes == ("blue", "green", "red")
    assert listed.loose == ()


@pytest.mark.parametrize("kind", WRITERS)
def test_numbers_are_texts_as_in_tables(kind, tmp_path):
    members = samples(text=lambda label: f"{NAMES.index(label)}\n")
    listed = find_labelled(WRITERS[kind](tmp_path / f"a.{kind}", members))
    assert listed.labels == [str(NAMES.index(label)) for label in LABELS]
    assert [NAMES[int(image.label)] for image in listed.refs] == [*map(colour_of, listed.refs)]


@pytest.mark.parametrize("kind", WRITERS)
def test_labels_under_a_key_of_json(kind, tmp_path):
    def text(label):
        return json.dumps({"breed": label, "label": NAMES.index(label), "p": 0.25})

    file = WRITERS[kind](tmp_path / f"a.{kind}", samples(ending="json", text=text))
    listed = check(file, label_column="breed", confidence_column="p")
    assert {image.confidence for image in listed.refs} == {0.25}
    assert find_labelled(file).labels == [str(NAMES.index(label)) for label in LABELS]
    with pytest.raises(InputError, match=r"under 'kind' .*'breed', 'label' and 'p': say which"):
        find_labelled(file, label_column="kind")
    # Any ending may hold the label alone.
    check(WRITERS[kind](tmp_path / f"b.{kind}", samples(ending="txt")), label_column="txt")


def test_the_key_that_is_asked_for_goes_before_the_number(tmp_path):
    members = []
    for i, label in enumerate(LABELS):
        sample = [
            (f"{i}.json", json.dumps({"label": label, "id": i}).encode()),
            (f"{i}.png", png(label, i)),
            (f"{i}.cls", str(NAMES.index(label)).encode()),
        ]
        members += sample if i % 2 else sample[::-1]
    check(write_tar(tmp_path / "a.tar", members))


def test_members_may_come_in_any_order(tmp_path):
    members = list(samples())
    images, labels = members[::2], members[1::2]
    check(write_tar(tmp_path / "images_first.tar", images + labels))
    check(write_tar(tmp_path / "labels_first.tar", labels[::-1] + images))
    nested = [(f"train/x.y/{name}", content) for name, content in members]
    check(write_tar(tmp_path / "nested.tar", nested))
    check(write_tar(tmp_path / "dotted.tar", [(f"./{n}", c) for n, c in members]))


def test_two_images_of_a_sample_have_its_label(tmp_path):
    members = [("1.left.png", png("red")), ("1.right.png", png("red", 1)), ("1.cls", b"red")]
    check(write_tar(tmp_path / "a.tar", members), ["red", "red"])


def test_names_may_have_points_of_their_own(tmp_path):
    members = [(f"n0.{name}", content) for name, content in samples()]
    check(write_tar(tmp_path / "a.tar", members))
    images, labels = members[::2], members[1::2]
    check(write_tar(tmp_path / "b.tar", images + labels[::-1]))
    # What one image has no label for, no other one's is.
    members = [("1.a.png", png("red")), ("1.a.cls", b"red"), ("1.b.png", png("blue"))]
    with pytest.warns(TrustVLMWarning, match=r"1 image in .*without a label.*1\.b\.png"):
        listed = find_labelled(write_tar(tmp_path / "c.tar", members))
    assert [(image.path, image.label) for image in listed.refs] == [("1.a.png", "red")]
    # Text that belongs to no image says nothing of the class folders.
    noted = [("red/1.png", png("red")), ("red/1.meta.json", b'{"label": "x"}')]
    check(write_tar(tmp_path / "e.tar", noted), ["red"])
    # The label of the name up to the first point is that of the others.
    members += [("1.cls", b"blue")]
    check(write_tar(tmp_path / "d.tar", members), ["red", "blue"])


def test_archives_behind_one_another_repeat_their_names(tmp_path):
    for first, second in ((["red"], ["blue"]), (["red", "green"], ["blue", "red"])):
        parts = [
            write_tar(tmp_path / f"{i}.tar", samples(s)) for i, s in enumerate((first, second))
        ]
        both = tmp_path / "both.tar"
        both.write_bytes(b"".join(part.read_bytes() for part in parts))
        check(both, first + second)


def test_no_label_is_guessed_where_names_repeat(tmp_path):
    members = [("1.png", png("red")), ("1.png", png("blue")), ("1.cls", b"blue"), *samples(["red"])]
    with pytest.warns(TrustVLMWarning, match=r"2 images in .*without a label.*1\.png, 1\.png"):
        listed = find_labelled(write_tar(tmp_path / "a.tar", members))
    assert listed.labels == ["red"]
    # Images and labels apart, and a name twice: there is no saying which is whose.
    members = [
        ("1.png", png("red")),
        ("2.png", png("red")),
        ("1.png", png("blue")),
        ("2.cls", b"red"),
        ("1.cls", b"blue"),
    ]
    with pytest.warns(TrustVLMWarning) as caught:
        assert find_labelled(write_tar(tmp_path / "b.tar", members)).labels == ["red"]
    assert "2 images" in str(caught[1].message)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_has_no_label_is_counted_and_named(kind, tmp_path):
    members = list(samples())
    bad = {3: b"", 7: b"two\nlines", 11: b"\xff\xfe\xff"}
    for i, content in bad.items():
        members[i] = (members[i][0], content)
    members += [("9999.cls", b"red"), ("alone.png", png("red"))]
    with pytest.warns(TrustVLMWarning) as caught:
        listed = check(
            WRITERS[kind](tmp_path / f"a.{kind}", members),
            [label for i, label in enumerate(LABELS) if 2 * i + 1 not in bad],
        )
    assert listed.loose == ("0001.png", "0003.png", "0005.png", "alone.png")
    assert dict(listed.skipped) == {".cls": 1}
    words = " ".join(str(warning.message) for warning in caught)
    assert "4 images in" in words
    assert "9999.cls" in words


@pytest.mark.parametrize(
    "content",
    [
        b"[1]",
        b"{",
        b'{"label": null}',
        b'{"label": ["red"]}',
        b'{"label": true}',
        b'{"label": 1.5}',
        b"[" * 100_000,
    ],
)
def test_json_without_a_label(content, tmp_path):
    members = [("0.png", png("red")), ("0.json", content), *samples(start=1)]
    with pytest.warns(TrustVLMWarning, match=r"1 image in .*0\.png"):
        check(write_tar(tmp_path / "a.tar", members))


def test_a_large_member_is_no_label(tmp_path):
    members = [("0.png", png("red")), ("0.cls", b"red" + b" " * 2**20), *samples(start=1)]
    with pytest.warns(TrustVLMWarning):
        check(write_tar(tmp_path / "a.tar", members))


def test_a_probability_that_is_none(tmp_path):
    members = samples(ending="json", text=lambda label: json.dumps({"label": label, "p": 2}))
    with pytest.raises(InputError, match=r"'0000\.json'.*from 0 to 1"):
        find_labelled(write_tar(tmp_path / "a.tar", members), confidence_column="p")


# Class folders in archives.


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("start", ["", "./", "pets/", "a\\"])
def test_class_folders(kind, start, tmp_path):
    separator = start[-1] if start.endswith("\\") else "/"
    members = [
        (f"{start}{label}{separator}{'deep/' * (i % 2)}{i}.png", png(label, i))
        for i, label in enumerate(LABELS)
    ]
    members.insert(3, (f"{start}__MACOSX/x.png", png("red")))
    listed = check(WRITERS[kind](tmp_path / f"a.{kind}", members))
    assert listed.classes == ("blue", "green", "red")


def test_compressed_class_folders(tmp_path):
    members = [(f"{label}/{i}.png", png(label, i)) for i, label in enumerate(LABELS)]
    check(write_tar(tmp_path / "a.tar.gz", members, "w:gz"))


def test_images_beside_class_folders_are_named(tmp_path):
    members = [(f"{label}/{i}.png", png(label, i)) for i, label in enumerate(LABELS)]
    with pytest.warns(TrustVLMWarning, match=r"1 image in .*without a label.*loose\.png"):
        listed = check(write_zip(tmp_path / "a.zip", [("loose.png", png("red")), *members]))
    assert listed.loose == ("loose.png",)


def test_splits_are_refused(tmp_path):
    members = [
        (f"data/{split}/{label}/{i}.png", png(label, i))
        for split in ("train", "test")
        for i, label in enumerate(LABELS)
    ]
    with pytest.raises(InputError, match=r"'?train'? .*splits of a data set.* Pack the folder"):
        find_labelled(write_zip(tmp_path / "a.zip", members))
    check(write_zip(tmp_path / "b.zip", members[10:]))


def test_archives_without_labels(tmp_path):
    flat = [(f"{i}.png", png(label)) for i, label in enumerate(LABELS)]
    with pytest.raises(InputError, match=r"class folders, in \.cls members"):
        find_labelled(write_tar(tmp_path / "a.tar", flat))
    with pytest.raises(InputError, match="at least one image"):
        find_labelled(write_tar(tmp_path / "b.tar", [("notes.txt", b"x")]))
    with pytest.raises(InputError, match="no such file"):
        find_labelled(tmp_path / "none.tar")
    cut = write_tar(tmp_path / "c.tar", samples())
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"c\.tar"):
        find_labelled(cut)


def test_a_broken_image_keeps_its_place(tmp_path):
    members = list(samples())
    members[4] = (members[4][0], b"")
    listed = find_labelled(write_tar(tmp_path / "a.tar", members))
    assert listed.labels == LABELS
    good = [image for i, image in enumerate(listed.refs) if i != 2]
    assert [*map(colour_of, good)] == [label for i, label in enumerate(LABELS) if i != 2]


# Several shards.


def test_shards(tmp_path, monkeypatch):
    for i in range(3):
        write_tar(tmp_path / f"pets-{i:03d}.tar", samples(LABELS[i * 3 : i * 3 + 3]))
    monkeypatch.chdir(tmp_path)
    listed = check("pets-{000..002}.tar", LABELS[:9])
    assert [image.path for image in listed.refs][2:4] == [
        "pets-000.tar/0002.png",
        "pets-001.tar/0000.png",
    ]
    check([tmp_path / "pets-002.tar", "pets-{000,001}.tar"], LABELS[6:9] + LABELS[:6])
    with pytest.warns(TrustVLMWarning, match="9 files passed over"):
        assert [*map(colour_of, open_images("pets-{000..002}.tar"))] == LABELS[:9]
    with pytest.raises(InputError, match=r"no such file"):
        find_labelled("pets-{000..003}.tar")


def test_braces(tmp_path):
    assert expand("{a,b}-{1..2}") == ["a-1", "a-2", "b-1", "b-2"]
    assert expand("a-{9..11}.tar") == ["a-9.tar", "a-10.tar", "a-11.tar"]
    assert expand("s3://b/{x,y}/a") == ["s3://b/x/a", "s3://b/y/a"]
    for text in ("plain", "{}", "{a}", "a{b..c}", "{1..x}"):
        assert expand(text) == [text]
    for text in ("{3..1}", "{0..99999999999}", "{0..9999}{0..9999}"):
        with pytest.raises(InputError, match="names"):
            expand(text)
    # A file that is called so is that file.
    named = tmp_path / "{a,b}.png"
    named.write_bytes(png("red"))
    assert expand(str(named)) == [str(named)]


def test_lists_of_folders_and_tables(tmp_path):
    for part in ("one", "two"):
        for label in NAMES:
            (tmp_path / part / label).mkdir(parents=True)
            (tmp_path / part / label / "x.png").write_bytes(png(label))
    (tmp_path / "list.csv").write_text("path,label\none/red/x.png,red\n")
    listed = check(
        [tmp_path / "one", tmp_path / "two", tmp_path / "list.csv"], [*sorted(NAMES) * 2, "red"]
    )
    assert len({image.path for image in listed.refs}) == 7


# Folders with a list of labels, as data sets of Hugging Face have them.


@pytest.fixture
def folder(tmp_path):
    for i, label in enumerate(LABELS):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{i}.png").write_bytes(png(label, i))
    return tmp_path


def rows():
    return [(f"images/{i}.png", label) for i, label in enumerate(LABELS)]


@pytest.mark.parametrize("column", ["label", "breed"])
def test_metadata(folder, column):
    text = [f"file_name,width,{column}", *(f"{name},32,{label}" for name, label in rows())]
    (folder / "metadata.csv").write_text("\n".join(text))
    listed = check(folder, label_column=column)
    assert [image.path for image in listed.refs] == [name for name, _ in rows()]
    (folder / "metadata.csv").unlink()
    lines = [json.dumps({column: label, "file_name": f"./{name}"}) for name, label in rows()]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    check(folder, label_column=column)


def test_images_that_the_metadata_does_not_list_are_named(folder):
    text = ["file_name,label", *(f"{name},{label}" for name, label in rows()[:-2])]
    (folder / "metadata.csv").write_text("\n".join(text))
    with pytest.warns(TrustVLMWarning, match=r"2 images in .*does not list.*images/8\.png"):
        listed = check(folder, LABELS[:-2])
    assert listed.loose == ("images/8.png", "images/9.png")


def test_metadata_spells_names_as_other_systems_do(folder):
    (folder / "images" / "a b.png").write_bytes((folder / "images" / "1.png").read_bytes())
    names = [name.replace("/", "\\") for name, _ in rows()]
    labels = [label for _, label in rows()]
    text = ["file_name,label", *map(",".join, zip(names, labels, strict=True))]
    (folder / "metadata.csv").write_text("\n".join([*text, "images/a%20b.png,red"]))
    listed = find_labelled(folder)
    assert listed.loose == ()
    assert all(image.read() for image in listed.refs)


def test_parts_with_metadata_of_their_own_are_named(folder, tmp_path):
    (folder / "images" / "metadata.csv").write_text("file_name,label\n1.png,red\n")
    with pytest.raises(InputError, match=r"list of labelled images of its own: name '.*images'"):
        find_labelled(folder)
    for part in ("train", "test"):
        shutil.copytree(folder / "images", tmp_path / "parts" / part)
    with pytest.raises(InputError, match=r"list of labelled images of its own: name '.*test'"):
        find_labelled(tmp_path / "parts")


def test_metadata_without_labels(folder):
    (folder / "metadata.csv").write_text("file_name,caption\nimages/1.png,a dog\n")
    # There are class folders: `images` is one.
    with pytest.warns(TrustVLMWarning, match="metadata"):
        assert find_labelled(folder).labels == ["images"] * 10
    flat = folder / "images"
    (flat / "metadata.csv").write_text("file_name,caption\n1.png,a dog\n")
    with pytest.raises(InputError, match=r"column 'label'.*'file_name', 'caption'"):
        find_labelled(flat)
    (flat / "metadata.csv").write_text("file_name,label\n1.png,red\n2.png,\n")
    with pytest.raises(InputError, match="row 2"):
        find_labelled(flat)
