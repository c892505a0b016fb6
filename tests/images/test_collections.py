"""Rows of data frames and data sets keep their pictures, names and labels together."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from pictures import COLOURS, picture
from trustvlm.exceptions import ImageError, InputError, TrustVLMWarning
from trustvlm.images import decode, find_labelled, open_images

NAMES = list(COLOURS)
# In an order in which neither sorting nor a shift by one leaves the labels where they were.
LABELS = ["blue", "red", "red", "green", "blue", "green", "red", "blue", "green", "green"]
PICTURES = [picture(COLOURS[label], i) for i, label in enumerate(LABELS)]


def encoded(image):
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def colour_of(image):
    mean = np.asarray(decode(image.read())).reshape(-1, 3).mean(axis=0)
    return min(COLOURS, key=lambda name: np.abs(mean - COLOURS[name]).sum())


def colours_of(source, **options):
    return [colour_of(image) for image in open_images(source, **options)]


def check_labelled(source, labels=LABELS, **columns):
    listed = find_labelled(source, **columns)
    assert listed.labels == labels
    assert [colour_of(image) for image in listed.refs] == labels
    return listed


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(len(PICTURES))]
    for path, image in zip(paths, PICTURES, strict=True):
        image.save(path)
    return paths


# pandas


def test_series_of_paths_and_of_pictures(files):
    pandas = pytest.importorskip("pandas")
    assert colours_of(pandas.Series(map(str, files))) == LABELS
    shuffled = pandas.Series(PICTURES, index=range(9, -1, -1))
    assert colours_of(shuffled) == LABELS
    check_labelled((shuffled, pandas.Series(LABELS, index=range(5, 15))))
    rows = list(
        open_images(pandas.Series([None, str(files[0]), math.nan, PICTURES[0]], dtype=object))
    )
    assert [image.path for image in rows] == ["image 0", str(files[0]), "image 2", "image 3"]


def test_data_frames(files):
    pandas = pytest.importorskip("pandas")
    texts = [str(file) for file in files]
    for column in (PICTURES, [encoded(p) for p in PICTURES], [np.asarray(p) for p in PICTURES]):
        frame = pandas.DataFrame({"image": column, "path": texts, "label": LABELS})
        assert colours_of(frame) == LABELS
        listed = check_labelled(frame)
        assert [image.path for image in listed.refs] == texts
        check_labelled(frame.drop(columns="path"))
    frame = pandas.DataFrame({"file": texts, "kind": pandas.Categorical(LABELS), "p": [0.5] * 10})
    check_labelled(frame, path_column="file", label_column="kind")
    frame["p"] = frame["p"].astype(object)
    frame.loc[3, "p"] = math.nan
    listed = find_labelled(frame, path_column="file", label_column="kind", confidence_column="p")
    assert [image.confidence for image in listed.refs][2] == 0.5
    assert math.isnan(listed.refs[3].confidence)
    # A filtered frame has another index, and its rows are still those of their labels.
    check_labelled(
        frame[frame["kind"] != "green"],
        [label for label in LABELS if label != "green"],
        path_column="file",
        label_column="kind",
    )
    numbered = pandas.DataFrame({"path": texts, "label": range(10)})
    assert find_labelled(numbered).labels == [str(i) for i in range(10)]
    assert find_labelled(numbered.astype({"label": float})).labels == [str(i) for i in range(10)]
    nothing = frame.assign(p=pandas.array([None] * 9 + [0.5], dtype="Float64"))
    listed = find_labelled(nothing, path_column="file", label_column="kind", confidence_column="p")
    assert math.isnan(listed.refs[0].confidence)
    assert listed.refs[9].confidence == 0.5


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"path": ["a.png"], "kind": ["x"]},
            {},
            "column 'label', but its columns are 'path', 'kind'",
        ),
        ({"file": ["a.png"], "label": ["x"]}, {}, "column 'path', but its columns are 'file'"),
        ({"path": ["a.png"], "label": [None]}, {}, "row 0 of the DataFrame"),
        ({"path": ["a.png", "b.png"], "label": ["x", math.nan]}, {}, "got nan in row 1"),
        ({"path": ["a.png"], "label": [True]}, {}, "row 0 of the DataFrame"),
        ({"path": [3], "label": ["x"]}, {}, "image 0 .* but got a int"),
        ({"path": ["a"], "label": ["x"]}, {"image_column": "png"}, "column 'png'"),
        ({"path": ["a"], "label": ["x"], "p": [2]}, {"confidence_column": "p"}, "from 0 to 1"),
    ],
)
def test_wrong_data_frames(columns, options, message):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InputError, match=message):
        find_labelled(pandas.DataFrame(columns), **options)


def test_missing_labels_that_became_texts_are_named():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"path": ["1.png", "2.png"], "label": [math.nan, "red"]})
    frame["label"] = [str(label) for label in frame["label"]]
    with pytest.warns(TrustVLMWarning, match="1 label is the text 'nan'"):
        assert find_labelled(frame).classes == ("nan", "red")


def test_data_frames_whose_columns_do_not_say_what_is_meant():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([["a.png", "x", "y"]], columns=["path", "label", "label"])
    with pytest.raises(InputError, match="one column 'label', but it has 2"):
        find_labelled(frame)
    indexed = pandas.DataFrame({"path": ["a.png"], "label": ["x"]}).set_index(["path", "label"])
    with pytest.raises(InputError, match="reset_index"):
        find_labelled(indexed)
    alone = pandas.DataFrame({"path": ["a.png"], "label": ["x"], "g": [pandas.NA]})
    with pytest.raises(InputError, match="group of each image"):
        find_labelled(alone, group_column="g")
    empty = pandas.DataFrame({"path": [""], "label": ["x"]})
    with pytest.raises(ImageError, match="there is no image here"):
        find_labelled(empty).refs[0].read()


# datasets of Hugging Face


@pytest.fixture
def library(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Dataset"):
        pytest.skip("not installed (`make extras` does): `datasets` is a folder of tests")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    datasets.disable_progress_bars()
    return datasets


@pytest.fixture
def dataset(library):
    features = library.Features(
        {"image": library.Image(), "label": library.ClassLabel(names=NAMES)}
    )
    columns = {"image": PICTURES, "label": [NAMES.index(label) for label in LABELS]}
    return library.Dataset.from_dict(columns, features=features)


def test_data_sets(library, dataset, files):
    assert colours_of(dataset) == LABELS
    check_labelled(dataset)
    check_labelled(dataset.to_iterable_dataset())
    assert colours_of(dataset.to_iterable_dataset()) == LABELS
    order = [3, 1, 4, 0, 9]
    check_labelled(dataset.select(order), [LABELS[i] for i in order])
    shuffled = dataset.shuffle(seed=3)
    check_labelled(shuffled, [NAMES[i] for i in shuffled["label"]])
    # The encoders' own preprocessing counts; what the set would do to pictures does not.
    check_labelled(dataset.with_transform(lambda batch: {"image": ["none"] * len(batch["image"])}))
    check_labelled(dataset.with_format("numpy"))
    assert colours_of(dataset["image"]) == LABELS
    check_labelled((dataset["image"], LABELS))
    paths = library.Dataset.from_dict({"image": [*map(str, files)], "kind": LABELS})
    paths = paths.cast_column("image", library.Image())
    listed = check_labelled(paths, label_column="kind")
    assert [image.path for image in listed.refs] == [*map(str, files)]
    # Bytes of files are those of the files.
    assert [image.read() for image in listed.refs] == [file.read_bytes() for file in files]


def test_one_split_is_chosen(library, dataset):
    parts = library.DatasetDict({"train": dataset, "test": dataset})
    for read in (open_images, find_labelled):
        with pytest.raises(InputError, match=r"'train' and 'test': pass one .*dataset\['train'\]"):
            read(parts)
    with pytest.raises(InputError, match="one split"):
        find_labelled((parts, LABELS))


def test_columns_of_data_sets(library, dataset):
    two = dataset.add_column("label2", LABELS).rename_column("label", "fine_label")
    with pytest.raises(InputError, match=r"'fine_label', 'label2'.*label_column="):
        find_labelled(two)
    check_labelled(two, label_column="fine_label")
    check_labelled(two, label_column="label2")
    other = dataset.rename_column("image", "img")
    check_labelled(other)
    both = library.concatenate_datasets([dataset, other.remove_columns("label")], axis=1)
    with pytest.raises(InputError, match="one column of images, but it has 'image' and 'img'"):
        find_labelled(both)
    check_labelled(both, image_column="img")
    unlabelled = library.Dataset.from_dict(
        {"image": PICTURES[:2], "label": [0, -1]}, features=dataset.features
    )
    with pytest.raises(InputError, match="got -1 in row 1 of the data set"):
        find_labelled(unlabelled)


# data sets of torch


def make_torch_dataset(rows, **attributes):
    data = pytest.importorskip("torch.utils.data")

    class Rows(data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, index):
            return rows[index % len(rows)]  # never an IndexError

    made = Rows()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def test_torch_data_sets():
    torch = pytest.importorskip("torch")
    numbers = [NAMES.index(label) for label in LABELS]
    tensors = [torch.from_numpy(np.array(p)).permute(2, 0, 1).float() / 255 for p in PICTURES]
    for pictures in (PICTURES, tensors):
        for labels in (numbers, np.array(numbers), torch.tensor(numbers)):
            rows = list(zip(pictures, labels, strict=True))
            made = make_torch_dataset(rows, classes=NAMES)
            assert colours_of(made) == LABELS
            check_labelled(made)
    order = [3, 1, 4, 0, 9]
    part = torch.utils.data.Subset(made, order)
    check_labelled(torch.utils.data.Subset(part, [4, 0]), [LABELS[9], LABELS[3]])
    assert colours_of(part) == [LABELS[i] for i in order]
    check_labelled(make_torch_dataset(list(zip(PICTURES, LABELS, strict=True))))
    assert colours_of(make_torch_dataset(PICTURES)) == LABELS
    with pytest.raises(InputError, match=r"got 2 at position 0. Write what"):
        find_labelled(make_torch_dataset(list(zip(PICTURES, numbers, strict=True))))
    with pytest.raises(InputError, match="Image at position 0"):
        find_labelled(make_torch_dataset(PICTURES, classes=NAMES))
    loader = torch.utils.data.DataLoader(made, batch_size=3)
    for read in (open_images, find_labelled):
        with pytest.raises(InputError, match=r"loader\.dataset"):
            read(loader)


def test_torch_data_sets_one_after_the_other():
    data = pytest.importorskip("torch.utils.data")
    numbers = [NAMES.index(label) for label in LABELS]
    rows = list(zip(PICTURES, numbers, strict=True))
    first, second = (make_torch_dataset(part, classes=NAMES) for part in (rows[:6], rows[6:]))
    check_labelled(data.ConcatDataset([first, second]))
    other = make_torch_dataset(rows[6:], classes=NAMES[::-1])
    with pytest.raises(InputError, match="Write what the number stands for"):
        find_labelled(data.ConcatDataset([first, other]))


def test_rows_of_torch_data_sets_that_are_mappings():
    rows = [{"image": p, "label": label} for p, label in zip(PICTURES, LABELS, strict=True)]
    made = make_torch_dataset(rows)
    assert colours_of(made) == LABELS
    check_labelled(made)
    check_labelled(rows)
    check_labelled(iter(rows))
    check_labelled(rows[:2], LABELS[:2])
    with pytest.raises(InputError, match="dict at position 0"):
        find_labelled([{"image": p} for p in PICTURES])


def test_labels_in_other_forms():
    torch = pytest.importorskip("torch")
    check_labelled((PICTURES, np.array(LABELS)))
    check_labelled((PICTURES, np.array(LABELS, dtype=object)))
    check_labelled((PICTURES, iter(LABELS)))
    check_labelled(({str(i): p for i, p in enumerate(PICTURES)}, LABELS))
    for bad in (np.arange(10), torch.arange(10), [None] * 10, [b"red"] * 10, [1.5] * 10):
        with pytest.raises(InputError, match="at position 0"):
            find_labelled((PICTURES, bad))
