"""Images with their classes, and the classes themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import ClassList, find_labelled, read_classes


def plant(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return folder


def test_a_folder_of_class_folders(tmp_path):
    plant(
        tmp_path, "dog/2.jpg", "dog/1.jpg", "cat/in/side/3.png", "cat/z.jpg",
        "loose.jpg", ".trash/9.jpg",
    )  # fmt: skip
    for name in ("cat/notes.txt", "classes.txt"):
        (tmp_path / name).write_text("no image")
    (tmp_path / "empty").mkdir()
    with (
        pytest.warns(TrustVLMWarning, match=r"2 files passed over.*classes\.txt and notes\.txt"),
        pytest.warns(TrustVLMWarning, match=r"1 image beside the class folders.*loose\.jpg"),
    ):
        labelled = find_labelled(tmp_path)
    assert [(ref.path, ref.label) for ref in labelled.refs] == [
        ("cat/in/side/3.png", "cat"), ("cat/z.jpg", "cat"), ("dog/1.jpg", "dog"),
        ("dog/2.jpg", "dog"),
    ]  # fmt: skip
    assert labelled.classes == ("cat", "dog", "empty")
    assert labelled.counts == {"cat": 2, "dog": 2, "empty": 0}
    assert labelled.loose == ("loose.jpg",)
    assert labelled.skipped == {".txt": 2}
    assert len(labelled) == 4
    assert labelled.labels == ["cat", "cat", "dog", "dog"]
    assert all(ref.file.is_file() for ref in labelled.refs)


def test_iterators_of_paths_and_labels():
    paths, labels = ["a.jpg", "b.jpg"], ["dog", "cat"]
    for source in (zip(paths, labels, strict=True), (iter(paths), iter(labels))):
        listed = find_labelled(source)
        assert [image.path for image in listed.refs] == paths
        assert listed.labels == labels
    with pytest.raises(InputError, match="iterator of pairs"):
        find_labelled(iter(["ab", "cd"]))


def test_order_is_by_class_folder_then_by_file(tmp_path):
    # As plain text, "a b/1.jpg" would come before "a/1.jpg".
    plant(tmp_path, "a/1.jpg", "a b/1.jpg", "a-b/1.jpg", "B/1.jpg")
    labelled = find_labelled(tmp_path)
    assert labelled.classes == ("B", "a", "a b", "a-b")
    assert labelled.labels == list(labelled.classes)


def test_links_among_class_folders(tmp_path):
    plant(tmp_path, "data/cat/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "self").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "knot").symlink_to(tmp_path / "data" / "knot")
    with pytest.warns(TrustVLMWarning, match="1 file passed over.*knot"):
        assert find_labelled(tmp_path / "data").counts == {"cat": 1, "dog": 1}


def test_csv_with_labels(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("path;label\nb.jpg;dog \nsub/a.jpg;cat\nb.jpg;dog\n")
    labelled = find_labelled(file)
    assert [(ref.path, ref.file, ref.label) for ref in labelled.refs] == [
        ("b.jpg", tmp_path / "b.jpg", "dog"),
        ("sub/a.jpg", tmp_path / "sub" / "a.jpg", "cat"),
        ("b.jpg", tmp_path / "b.jpg", "dog"),
    ]
    assert labelled.classes == ("cat", "dog")
    file.write_text("image,class\n1.jpg,x\n")
    assert find_labelled(file, path_column="image", label_column="class").labels == ["x"]
    with pytest.raises(InputError, match="column 'path', but its columns are 'image', 'class'"):
        find_labelled(file)
    file.write_text("path,label\n1.jpg,x\n\n2.jpg,\n")
    with pytest.raises(InputError, match=r"'label' in row 2 \(line 4\)"):
        find_labelled(file)
    file.write_text("path,label\n1.jpg,x\n2.jpg\n")
    with pytest.raises(InputError, match=r"'label' in row 2 \(line 3\)"):
        find_labelled(file)
    file.write_text("path,label\n")
    with pytest.raises(InputError, match="lists none"):
        find_labelled(file)


def test_paths_and_labels():
    paths = [Path("x/b.jpg"), "a.jpg", "a.jpg"]
    for labels in (["dog", "cat", "cat"], np.array(["dog", "cat", "cat"]), ("dog", "cat", "cat")):
        labelled = find_labelled((paths, labels))
        assert [ref.path for ref in labelled.refs] == [str(Path("x/b.jpg")), "a.jpg", "a.jpg"]
        assert labelled.labels == ["dog", "cat", "cat"]
        assert labelled.classes == ("cat", "dog")


def test_labelled_urls(tmp_path):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    base = f"memory://{tmp_path.name}"
    names = (
        "dog/2.jpg",
        "dog/1.jpg",
        "cat/in/side/3.png",
        "cat/notes.txt",
        "loose.jpg",
        ".x/9.jpg",
    )
    for name in names:
        memory.pipe_file(f"/{tmp_path.name}/{name}", name.encode())
    # A folder of class folders, as on this machine.
    with pytest.warns(TrustVLMWarning, match="notes.txt|loose.jpg"):
        folder = find_labelled(base)
    assert [(image.path, image.label) for image in folder.refs] == [
        ("cat/in/side/3.png", "cat"), ("dog/1.jpg", "dog"), ("dog/2.jpg", "dog"),
    ]  # fmt: skip
    assert (folder.classes, folder.loose) == (("cat", "dog"), ("loose.jpg",))
    assert folder.skipped == {".txt": 1}
    assert [image.read() for image in folder.refs] == [i.path.encode() for i in folder.refs]
    assert all(image.file is None for image in folder.refs)
    # URLs in a table of this machine, a table elsewhere with paths beside it, and a pair.
    (tmp_path / "here.jpg").write_bytes(b"here")
    (tmp_path / "t.csv").write_text(f"path,label\n{base}/dog/1.jpg,dog\nhere.jpg,cat\n")
    memory.pipe_file(f"/{tmp_path.name}/t.csv", b"path,label\ndog/1.jpg,dog\nloose.jpg,cat\n")
    pair = ([f"{base}/dog/1.jpg", tmp_path / "here.jpg"], ["dog", "cat"])
    for source, second in (
        (tmp_path / "t.csv", b"here"),
        (f"{base}/t.csv", b"loose.jpg"),
        (pair, b"here"),
    ):
        labelled = find_labelled(source)
        assert labelled.labels == ["dog", "cat"]
        assert [image.read() for image in labelled.refs] == [b"dog/1.jpg", second]
    with pytest.raises(InputError, match="there is no 'memory://"):
        find_labelled(f"{base}/nowhere")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((["a.jpg"], ["x", "y"]), "1 images and 2 labels"),
        ((["a.jpg"], [3]), "but got 3 at position 0"),
        ((["a.jpg"], [" "]), "at position 0"),
        ((["a.jpg"], [None]), "at position 0"),
        (([], []), "lists none"),
        (["a.jpg", "b.jpg"], "a pair"),
        (["a.jpg"], "a pair"),
        (([3], ["x"]), "named by a path"),
        (3, "a pair"),
    ],
)
def test_wrong_pairs(source, message):
    with pytest.raises(InputError, match=message):
        find_labelled(source)


def test_wrong_folders_and_files(tmp_path):
    with pytest.raises(InputError, match="there is no"):
        find_labelled(tmp_path / "nowhere")
    plant(tmp_path, "flat/1.jpg", "flat/2.jpg", "void/cat/notes.txt")
    with pytest.raises(InputError, match=r"holds no folders \(2 image files\)\. Or name a table"):
        find_labelled(tmp_path / "flat")
    with pytest.raises(InputError, match=r"1 other file \(1 x .txt\)"):
        find_labelled(tmp_path / "void")
    with pytest.raises(InputError, match="got the file"):
        find_labelled(tmp_path / "flat" / "1.jpg")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    plant(tmp_path, "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "dog").chmod(0)
    superuser = os.geteuid() == 0
    if superuser:
        for folder in tmp_path.parents[:3]:
            folder.chmod(0o755)
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(InputError, match=r"can be listed, but got: Permission denied"):
            find_labelled(tmp_path)
    finally:
        if superuser:
            os.seteuid(0)
        (tmp_path / "dog").chmod(0o755)


# -- classes ------------------------------------------------------------------------------------


def test_classes_from_text_sequences_and_mappings():
    assert read_classes("cat, dog ,  sea lion").names == ("cat", "dog", "sea lion")
    assert read_classes('"rock, paper", dog').names == ("rock, paper", "dog")
    assert read_classes("cat").names == ("cat",)
    assert read_classes(["cat", "dog"]).folders == ("cat", "dog")
    assert read_classes(np.array(["cat", "dog"])).names == ("cat", "dog")
    mapped = read_classes({"n1": "cat", "n2": "dog"})
    assert (mapped.names, mapped.folders, len(mapped)) == (("cat", "dog"), ("n1", "n2"), 2)
    assert read_classes(mapped) is mapped


def test_classes_from_a_file(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("\ufeff# folder<TAB>name\n\nn1\tsea lion \n  dog\n# end\nn3\tcat\n", "utf-8")
    for spec in (file, str(file)):
        classes = read_classes(spec)
        assert classes.names == ("sea lion", "dog", "cat")
        assert classes.folders == ("n1", "dog", "n3")


def test_classes_of_the_real_sets(data_root):
    for file in sorted(data_root.glob("*/classes.txt")):
        classes = read_classes(file)
        (folder,) = (file.parent / "train").parent.glob("train")
        labelled = find_labelled(folder)
        assert labelled.classes == tuple(sorted(classes.folders))
        counts = np.bincount(classes.indices(labelled.labels), minlength=len(classes))
        assert counts.sum() == len(labelled)
        assert counts.min() > 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "at least one class|empty"),
        ([], "at least one class"),
        ({}, "at least one class"),
        ("cat,,dog", "not to be empty, but number 2 is"),
        (["cat", " "], "not to be empty"),
        ("cat,dog,cat", "these repeat: 'cat'"),
        ({"a": "cat", "b": "cat", "c": "cat (b)"}, r"these repeat: 'cat \(b\)'"),
        (["cat", 3], "got 3"),
        (Path("nowhere.txt"), "no file"),
        ("nowhere.txt", "no file"),
        (Path("nowhere"), "no file"),
    ],
)
def test_wrong_classes(spec, message):
    with pytest.raises(InputError, match=message):
        read_classes(spec)


def test_a_long_list_of_names_is_no_path():
    names = [f"class number {i}" for i in range(1000)]
    assert read_classes(",".join(names)).names == tuple(names)


def test_wrong_class_files(tmp_path):
    file = tmp_path / "classes.txt"
    for content, message in (
        ("a\tb\tc\n", "line 1"),
        ("cat\n\tdog\n", "line 2"),
        ("# nothing\n", "lists none"),
        ("a\tcat\na\tdog\n", "folders to be distinct"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            read_classes(file)


def test_labels_to_indices():
    classes = ClassList(("house cat", "dog"), ("cat", "canine"))
    assert list(classes.indices(["canine", "cat", "canine"])) == [1, 0, 1]
    assert list(classes.indices(["dog", "house cat"])) == [1, 0]
    assert list(classes.indices(["dog", "cat"])) == [1, 0]
    assert classes.indices([]).shape == (0,)
    assert classes.indices(["dog"]).dtype == np.int64
    with pytest.raises(InputError, match=r"'fox', 'Dogs' are not: .* The classes are 'cat'"):
        classes.indices(["cat", "fox", "Dogs", "fox"])
    with pytest.raises(InputError, match="as many folders as names"):
        ClassList(("a", "b"), ("x",))


def test_classes_may_share_a_name_where_folders_tell_them_apart():
    classes = read_classes({"n1": "missile", "n2": "missile", "n3": "tench"})
    assert classes.names == ("missile", "missile", "tench")
    assert classes.labels == ("missile (n1)", "missile (n2)", "tench")
    assert list(classes.indices(["n2", "n3", "n1"])) == [1, 2, 0]
    # Verdicts can be read back as labels.
    assert list(classes.indices(["tench", "missile (n2)"])) == [2, 1]
    with pytest.raises(InputError, match="'missile' is the name of several"):
        classes.indices(["tench", "missile"])


def test_a_label_that_could_mean_two_classes():
    classes = ClassList(("jaguar car", "jaguar", "lion"), ("jaguar", "jaguar_cat", "leo"))
    assert list(classes.indices(["jaguar", "jaguar_cat"])) == [0, 1], "all are folders"
    assert list(classes.indices(["jaguar", "jaguar car"])) == [1, 0], "all are names"
    with pytest.raises(InputError, match="'jaguar' to mean one class"):
        classes.indices(["jaguar", "jaguar_cat", "lion"])


@given(st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=20, unique=True))
def test_indices_invert_the_names(names):
    classes = read_classes(names)
    assert list(classes.indices(names[::-1])) == list(range(len(names)))[::-1]


@pytest.mark.parametrize("value", [None, "", -1])
def test_a_row_of_a_parquet_file_without_a_label_is_named(tmp_path, value):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    labels = [0 if value == -1 else "cat", value]
    table = pyarrow.table({"path": ["a.png", "b.png"], "image": [b"1", b"2"], "label": labels})
    names = {"info": {"features": {"label": {"names": ["cat"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    parquet.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"'label' of .*got (None|''|-1) for 'b\.png'"):
        find_labelled(tmp_path / "p.parquet")


def test_groups_of_images_that_are_not_independent(tmp_path):
    (tmp_path / "a.csv").write_text("path,label,scene\n1.jpg,cat, lake \n2.jpg,dog,7\n")
    (tmp_path / "a.jsonl").write_text('{"path": "1.jpg", "label": "cat", "scene": 7}\n')
    listed = find_labelled(tmp_path / "a.csv", group_column="scene")
    assert [image.group for image in listed.refs] == ["lake", "7"]
    assert [image.group for image in find_labelled(tmp_path / "a.csv").refs] == ["", ""]
    assert find_labelled(tmp_path / "a.jsonl", group_column="scene").refs[0].group == "7"
    pandas = pytest.importorskip("pandas", reason="data frames")
    frame = pandas.DataFrame({"path": ["1.jpg"], "label": ["cat"], "scene": [3]})
    assert next(iter(find_labelled(frame, group_column="scene").refs)).group == "3"
    floats = frame.assign(scene=[3.0])
    assert next(iter(find_labelled(floats, group_column="scene").refs)).group == "3"
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet files")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pandas(frame), tmp_path / "a.parquet")
    assert find_labelled(tmp_path / "a.parquet", group_column="scene").refs[0].group == "3"


def test_images_without_a_group_are_an_error(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("path,label,scene\n1.jpg,cat,lake\n2.jpg,dog,\n")
    with pytest.raises(InputError, match=r"'scene', but '2\.jpg' has none"):
        find_labelled(table, group_column="scene")
    with pytest.raises(InputError, match=r"'shot', but '1\.jpg' has none, or there is no such"):
        find_labelled(table, group_column="shot")
    plant(tmp_path, "in/cat/1.jpg")
    with pytest.raises(InputError, match=r"in' is neither: write a CSV with"):
        find_labelled(tmp_path / "in", group_column="scene")
    with pytest.raises(InputError, match=r"give the groups themselves \(groups=\)"):
        find_labelled((["1.jpg"], ["cat"]), group_column="scene")
