"""The restricted reader of legacy checkpoints: exact on honest files, firm with all others."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trustvlm.exceptions import ArtefactError
from trustvlm.models.offline.weights import read_checkpoint

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
PROTOCOL = pickle.dumps(1001, protocol=2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True}, protocol=2)
STORAGES = {"f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "u1": "Byte"}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def integers(values) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(key: str, kind: str, length: int, offset: int, shape, strides) -> bytes:
    storage = text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu")
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + (storage + integer(length) + b"NtQ")
        + (integer(offset) + integers(shape) + integers(strides))
        + b"\x89ccollections\nOrderedDict\n)Rt"
        b"R"
    )


def checkpoint(tensors: dict[str, bytes], storages: dict[str, np.ndarray]) -> bytes:
    """Assemble a file by hand, opcode by opcode."""
    body = b"".join(text(name) + value for name, value in tensors.items())
    values = b"".join(struct.pack("<q", v.size) + v.tobytes() for v in storages.values())
    return (
        MAGIC
        + PROTOCOL
        + SYSTEM
        + (b"\x80\x02ccollections\nOrderedDict\n)R(" + body + b"u.")
        + pickle.dumps(list(storages), protocol=2)
        + values
    )


def one_tensor(values: np.ndarray, *, offset=0, shape=None, strides=None, length=None) -> bytes:
    shape = (values.size,) if shape is None else shape
    strides = (1,) if strides is None else strides
    length = values.size if length is None else length
    return checkpoint({"w": tensor("1", "Float", length, offset, shape, strides)}, {"1": values})


SIX = np.arange(6, dtype="<f4")


@given(
    arrays=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(str.isprintable),
        st.sampled_from(sorted(STORAGES)).flatmap(
            lambda kind: hnp.arrays(f"<{kind}", hnp.array_shapes(min_dims=0, min_side=0))
        ),
        max_size=4,
    ),
    transposed=st.booleans(),
)
def test_tensors_come_back_as_they_were(arrays, transposed):
    tensors, storages = {}, {}
    for index, (name, array) in enumerate(arrays.items()):
        stored = np.array(array, order="F" if transposed else "C")
        strides = [step // array.itemsize for step in stored.strides]
        storages[str(index)] = stored.ravel(order="K")
        kind = STORAGES[array.dtype.str[1:]]
        # NumPy gives empty arrays strides of its own; none of them is ever followed.
        tensors[name] = tensor(str(index), kind, array.size, 0, array.shape, strides)
    weights = read_checkpoint(checkpoint(tensors, storages), name="hand-made")
    assert list(weights) == list(arrays)
    for name, array in arrays.items():
        assert weights[name].dtype == array.dtype
        assert weights[name].shape == array.shape
        np.testing.assert_array_equal(weights[name], array)


def test_two_tensors_may_share_a_storage():
    tensors = {
        "rows": tensor("1", "Float", 6, 0, (2, 3), (3, 1)),
        "tail": tensor("1", "Float", 6, 4, (2,), (1,)),
        "last": tensor("1", "Float", 6, 5, (), ()),
    }
    weights = read_checkpoint(checkpoint(tensors, {"1": SIX}), name="hand-made")
    np.testing.assert_array_equal(weights["rows"], SIX.reshape(2, 3))
    np.testing.assert_array_equal(weights["tail"], SIX[4:])
    assert weights["last"] == 5


@pytest.mark.parametrize("stage", range(5))
@pytest.mark.parametrize(
    "call",
    [
        b"cos\nsystem\n(X\x0e\x00\x00\x00touch MARKERXXtR.",
        b"cposix\nsystem\n(X\x0e\x00\x00\x00touch MARKERXXtR.",
        b"cbuiltins\neval\n(X\x04\x00\x00\x001+10tR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch MARKERXX\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        b"ctorch\nload\n.",
        b"ctorch.storage\nFloatStorage\n.",
        b"ctrustvlm.models.offline.weights\n_read\n.",
        b"(X\x0e\x00\x00\x00touch MARKERXXios\nsystem\n.",
    ],
)
def test_nothing_that_a_file_names_is_run(tmp_path, monkeypatch, stage, call):
    monkeypatch.chdir(tmp_path)
    honest = [MAGIC, PROTOCOL, SYSTEM, pickle.dumps({}, protocol=2), pickle.dumps([], protocol=2)]
    honest[stage] = call
    with pytest.raises(ArtefactError, match="is not admitted"):
        read_checkpoint(b"".join(honest), name="evil.pth")
    assert not list(Path().iterdir())


def test_a_malicious_call_would_have_worked_with_pickle(tmp_path, monkeypatch):
    # The test above proves something only if its opcodes do harm elsewhere.
    monkeypatch.chdir(tmp_path)
    pickle.loads(b"cos\nsystem\n(X\x0e\x00\x00\x00touch MARKERXXtR.")
    assert [p.name for p in Path().iterdir()] == ["MARKERXX"]


@pytest.mark.parametrize(
    "target",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
        tensor("1", "Float", 6, 0, (6,), (1,)),
    ],
)
@pytest.mark.parametrize("state", [b"}X\x05\x00\x00\x00shapeNs", b"N}X\x05\x00\x00\x00shapeNs\x86"])
def test_no_opcode_can_alter_what_is_admitted(target, state):
    body = b"\x80\x02" + target + state + b"b."
    content = MAGIC + PROTOCOL + SYSTEM + body + pickle.dumps([], protocol=2)
    with pytest.raises(ArtefactError, match=r"evil\.pth"):
        read_checkpoint(content, name="evil.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Ran out of input"),
        (b"PK\x03\x04", "truncated"),
        (pickle.dumps(1, protocol=2), "not a checkpoint in PyTorch's legacy format"),
        (MAGIC + pickle.dumps(1002, protocol=2), "expected protocol 1001, but got 1002"),
        (
            MAGIC + PROTOCOL + pickle.dumps({"little_endian": False}, protocol=2),
            "written on a big-endian machine",
        ),
        (
            MAGIC + PROTOCOL + SYSTEM + pickle.dumps({"a": 1}) + pickle.dumps([]),
            "something else than a dictionary of tensors",
        ),
        (one_tensor(SIX, shape=(7,)), "does not fit its storage"),
        (one_tensor(SIX, shape=(1 << 40,), strides=(0,)), "does not fit its storage"),
        (one_tensor(SIX, offset=-1), "does not fit its storage"),
        (one_tensor(SIX, shape=(2,), strides=(-1,)), "does not fit its storage"),
        (one_tensor(SIX, offset=1), "reaches beyond its storage"),
        (one_tensor(SIX, shape=(2, 3), strides=(4, 1)), "reaches beyond its storage"),
        (one_tensor(SIX, shape=(2, 3), strides=(3,)), "shorter"),
        (one_tensor(SIX, length=5), "expected 5 values in a storage, but got 6"),
        (one_tensor(SIX)[:-1], "ends in the middle of a tensor"),
        (one_tensor(SIX) + b"\0", "bytes after the last tensor"),
        (
            checkpoint(
                {
                    "a": tensor("1", "Float", 6, 0, (6,), (1,)),
                    "b": tensor("1", "Long", 6, 0, (6,), (1,)),
                },
                {"1": SIX},
            ),
            "disagree about their storage",
        ),
    ],
)
def test_a_damaged_file_says_what_is_wrong(content, message):
    with pytest.raises(ArtefactError, match=message) as caught:
        read_checkpoint(content, name="model.pth")
    assert str(caught.value).startswith("Cannot read the checkpoint model.pth: ")


@given(end=st.integers(0, len(one_tensor(SIX)) - 1))
def test_every_truncation_is_noticed(end):
    with pytest.raises(ArtefactError):
        read_checkpoint(one_tensor(SIX)[:end], name="cut.pth")


@given(position=st.integers(0, len(one_tensor(SIX)) - 1), value=st.integers(0, 255))
def test_a_flipped_byte_gives_arrays_or_the_stated_error(position, value):
    content = bytearray(one_tensor(SIX))
    content[position] = value
    try:
        weights = read_checkpoint(bytes(content), name="flipped.pth")
    except ArtefactError:
        return
    assert all(isinstance(array, np.ndarray) for array in weights.values())
