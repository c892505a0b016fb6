"""CIFAR from pickles like the published ones, and the refusal of all others."""

from __future__ import annotations

import contextlib
import os
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_trees import (
    CIFAR10_NAMES,
    cifar_pixels,
    plant_cifar10,
    plant_cifar100,
    python2_pickle,
)
from trustvlm import datasets
from trustvlm.datasets.cifar import read_pickle
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import decode

SMALL = {
    "cifar10": replace(datasets.get("cifar10"), counts={"train": 10, "test": 2}),
    "cifar100": replace(datasets.get("cifar100"), counts={"train": 3, "test": 2}),
}


def pixels_of(ref):
    return np.asarray(decode(ref.read(), name=ref.path))


def test_cifar10(tmp_path):
    plant_cifar10(tmp_path)
    test = datasets.load(SMALL["cifar10"], tmp_path, strict=True)
    assert test.class_names == tuple(CIFAR10_NAMES)
    assert test.labels.dtype == np.int64
    assert test.labels.tolist() == [5, 6]
    assert test.refs[1].path == "cifar-10-batches-py/test_batch/test_batch_s_000001.png"
    assert test.refs[1].label == "frog"
    train = datasets.load(SMALL["cifar10"], tmp_path, "train", strict=True)
    assert train.labels.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert [ref.path.split("/")[1] for ref in train.refs[::2]] == [
        f"data_batch_{i}" for i in range(1, 6)
    ]


def test_no_pixel_is_changed(tmp_path):
    plant_cifar10(tmp_path)
    train = datasets.load(SMALL["cifar10"], tmp_path, "train")
    for i, ref in enumerate(train.refs):
        row = cifar_pixels(2, seed=i // 2)[i % 2]
        seen = pixels_of(ref)
        assert seen.shape == (32, 32, 3)
        # 1024 red values row by row, then green, then blue.
        for y, x in [(0, 0), (0, 31), (31, 0), (7, 19)]:
            assert seen[y, x].tolist() == [row[plane * 1024 + y * 32 + x] for plane in range(3)]
        assert np.array_equal(seen.transpose(2, 0, 1).ravel(), row)


def test_cifar100_has_the_fine_classes(tmp_path):
    plant_cifar100(tmp_path)
    spec = SMALL["cifar100"]
    train = datasets.load(spec, tmp_path, "train", strict=True)
    assert train.class_names == tuple(f"class_{i}" for i in range(100))
    assert train.labels.tolist() == [99, 0, 42]
    assert datasets.load(spec, tmp_path, strict=True).labels.tolist() == [7, 99]
    assert train.refs[2].path == "cifar-100-python/train/train_2.png"


def test_there_is_no_validation_split(tmp_path):
    plant_cifar100(tmp_path)
    with pytest.raises(InputError, match="one of train, test, but got 'val'"):
        datasets.load("cifar100", tmp_path, "val")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_that_python_3_saved_anew(tmp_path, protocol):
    plant_cifar10(tmp_path, dump=lambda value: pickle.dumps(value, protocol))
    test = datasets.load(SMALL["cifar10"], tmp_path, strict=True)
    row = cifar_pixels(2, seed=5)[1]
    assert np.array_equal(pixels_of(test.refs[1]).transpose(2, 0, 1).ravel(), row)
    assert test.class_names == tuple(CIFAR10_NAMES)


@given(
    st.sampled_from(["u1", "i1", "<i2", "<i4", "<i8"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_arrays_come_back_as_numpy_reads_them(dtype, shape, fortran, protocol):
    values = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    values = np.asfortranarray(values) if fortran else values
    loaded = read_pickle(pickle.dumps({"x": values}, protocol), name="x")["x"]
    assert loaded.dtype == values.dtype
    assert np.array_equal(loaded, values)
    assert not loaded.flags.writeable


def test_the_miniatures_are_pickles_that_numpy_itself_reads():
    value = {"data": cifar_pixels(2, 0), "labels": [3, 300], "name": "x" * 300}
    content = python2_pickle(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2 speaks of its renamed modules
        loaded = pickle.loads(content, encoding="latin1")
    assert np.array_equal(loaded["data"], value["data"])
    assert (loaded["labels"], loaded["name"]) == ([3, 300], "x" * 300)
    assert np.array_equal(read_pickle(content, name="x")["data"], value["data"])
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content


class Bad:
    """Runs a command when it is unpickled."""

    def __init__(self, call, *arguments):
        self.made = call, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "bad",
    [
        lambda trace: Bad(os.system, f"touch '{trace}'"),
        lambda trace: Bad(exec, f"open({str(trace)!r}, 'w')"),
        lambda trace: Bad(open, str(trace), "w"),
        lambda trace: Bad(np.save, str(trace), 1),
        lambda trace: Bad(np.array, [1]),
    ],
)
def test_a_pickle_that_runs_something_is_refused(tmp_path, bad, protocol):
    trace = tmp_path / "trace"
    home = plant_cifar10(tmp_path)
    (home / "test_batch").write_bytes(pickle.dumps({"data": bad(trace)}, protocol))
    with pytest.raises(InputError, match=r"Cannot read the pickle .*test_batch: it names `"):
        datasets.load("cifar10", tmp_path)
    assert not trace.exists()


def raw(text):
    return text.encode("latin1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        raw("(lp0\n."),  # a list
        raw("cos\nsystem\n(S'true'\ntR."),
        raw("c__builtin__\neval\n(S'1'\ntR."),
        raw("cnumpy\nsave\n."),
        raw("cnumpy.core.multiarray\nscalar\n."),
        raw("cnumpy.core.multiarray\n_reconstruct.__class__\n."),
        # The stand-ins can be called and told to take on a state; neither leads anywhere.
        raw("}S'x'\ncnumpy\nndarray\n)Rs."),
        raw("}S'x'\ncnumpy\ndtype\n(S'O8'\nI0\nI1\ntRs."),
        raw("}S'x'\ncnumpy.core.multiarray\n_reconstruct\n)R(I1\n(I9\ntI2\nI00\nS'abc'\ntbs."),
        raw("}S'x'\ncnumpy.core.multiarray\n_reconstruct\n}S'y'\nI1\nsbs."),
        raw("}S'x'\ncnumpy.core.multiarray\n_reconstruct\n)Rs."),
        raw("}S'x'\nP7\ns."),  # a persistent object
        pickle.dumps({"x": np.array([object()], dtype=object)}, 2),
        pickle.dumps({"x": np.array([1.5])}, 2),
        pickle.dumps({"x": np.array([1], dtype=">i4")}, 2),
        pickle.dumps({"x": cifar_pixels(1, 0)}, 2)[:-40],
    ],
)
def test_damaged_and_foreign_pickles_are_refused(content):
    with pytest.raises(InputError, match="Cannot read the pickle batch: "):
        read_pickle(content, name="batch")


def test_a_shape_cannot_claim_more_than_the_bytes_there_are():
    content = pickle.dumps({"x": np.zeros(4, dtype=np.uint8)}, 2)
    assert content.count(b"K\x04\x85") == 1
    for shape in (b"J\xff\xff\xff\x7f\x85", b"J\xff\xff\xff\xff\x85", b"K\x05\x85"):
        with pytest.raises(InputError, match="an array of shape"):
            read_pickle(content.replace(b"K\x04\x85", shape), name="batch")


def test_the_stand_ins_keep_no_trace_of_a_hostile_file():
    hostile = raw("}S'x'\ncnumpy.core.multiarray\n_reconstruct\n(NS'__defaults__'\nI1\nsb")
    for _ in range(2):
        with pytest.raises(InputError):
            read_pickle(hostile, name="x")
    good = pickle.dumps({"x": np.arange(3)}, 2)
    assert read_pickle(good, name="x")["x"].tolist() == [0, 1, 2]


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_fail_politely(content):
    with contextlib.suppress(InputError):
        assert isinstance(read_pickle(content, name="x"), dict)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": [1, 2]}, r"'data' in .*test_batch' to be \(n, 3072\) of uint8"),
        ({"data": np.zeros((2, 3071), np.uint8)}, "'data' in "),
        ({"data": np.zeros((2, 3072), np.int16)}, "'data' in "),
        ({"data": np.zeros(3072, np.uint8)}, "'data' in "),
        ({"labels": [1]}, r"'labels' in .* to be 2 whole numbers in \[0, 10\)"),
        ({"labels": [1, 10]}, "'labels' in "),
        ({"labels": [1, -1]}, "'labels' in "),
        ({"labels": [1, 2**70]}, "'labels' in "),
        ({"labels": [1, "2"]}, "'labels' in "),
        ({"labels": [1, [2]]}, "'labels' in "),
        ({"labels": None}, "'labels' in "),
    ],
)
def test_batches_of_another_form(tmp_path, change, message):
    home = plant_cifar10(tmp_path)
    batch = {"data": cifar_pixels(2, 0), "labels": [1, 2], "filenames": ["a", "b"], **change}
    (home / "test_batch").write_bytes(python2_pickle(batch))
    with pytest.raises(InputError, match=message):
        datasets.load("cifar10", tmp_path)


def test_labels_as_an_array_and_no_file_names(tmp_path):
    home = plant_cifar10(tmp_path)
    batch = {"data": cifar_pixels(2, 0), "labels": np.array([1, 2])}
    (home / "test_batch").write_bytes(python2_pickle(batch))
    loaded = datasets.load(SMALL["cifar10"], tmp_path, strict=True)
    assert loaded.labels.tolist() == [1, 2]
    assert loaded.refs[1].path.endswith("test_batch/00001")


def test_missing_files(tmp_path):
    home = plant_cifar10(tmp_path)
    (home / "data_batch_3").unlink()
    with pytest.warns(TrustVLMWarning, match="expected 10000 images, but found 2"):
        datasets.load("cifar10", tmp_path)
    with pytest.raises(InputError, match=r"Expected 'data_batch_3' of CIFAR-10 in .*batches.meta"):
        datasets.load("cifar10", tmp_path, "train")
    (home / "batches.meta").write_bytes(python2_pickle({"names": []}))
    with pytest.raises(InputError, match=r"to list 'label_names', but it holds \['names'\]"):
        datasets.load("cifar10", tmp_path)
