"""One picture has one verdict, however a program holds it, and keeps its label."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pictures import COLOURS, picture
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images import Limits, decode, find_images, find_labelled, open_images

SHOTS = [picture(colour, i) for i in range(4) for colour in COLOURS.values()]
LABELS = list(COLOURS) * 4


def new_model(**settings):
    encoders = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
    return TrustVLM(**encoders, **{"store": EmbeddingStore.memory(), **settings})


@pytest.fixture(scope="module")
def model():
    return new_model().fit((SHOTS, LABELS))


def read(source, **options):
    images = list(open_images(source, **options))  # read ahead, as the pipeline does
    return [(image.path, decode(image.read())) for image in images]


def pixels(source, **options):
    return [np.asarray(image) for _, image in read(source, **options)]


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def turned(image, orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture
def opened():
    """Open files, by a function, and close them at the end."""
    with ExitStack() as files:
        yield lambda file: files.enter_context(Image.open(file))


# One picture, in each of the forms that people hold it in.

PHOTO = encoded(picture((90, 120, 30), 5, size=48).resize((40, 24)), "JPEG", quality=90)


def torch_of(array):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)


def forms(file, opened):
    file.write_bytes(PHOTO)
    array = np.array(decode(PHOTO))
    loaded = opened(file)
    loaded.load()
    yield "path", [file], str(file)
    yield "bytes", [PHOTO], "image 0"
    yield "bytearray", [bytearray(PHOTO)], "image 0"
    yield "memoryview", [memoryview(PHOTO)], "image 0"
    yield "open file", [opened(file).fp], str(file)
    yield "stream", [io.BytesIO(PHOTO)], "image 0"
    yield "lazy PIL", [opened(file)], str(file)
    yield "lazy PIL of bytes", [Image.open(io.BytesIO(PHOTO))], "image 0"
    yield "loaded PIL", [loaded], str(file)
    yield "converted PIL", [opened(file).convert("RGB")], "image 0"
    yield "array", [array], "image 0"
    yield "batch", array[None], "image 0"
    yield "strided array", [np.asfortranarray(array)], "image 0"
    yield "mapping", {"mine.jpg": array}, "mine.jpg"
    yield "undecoded row", [{"bytes": PHOTO, "path": None}], "image 0"
    yield "named row", [{"bytes": PHOTO, "path": "a/b.jpg"}], "a/b.jpg"
    yield "referenced row", [{"bytes": None, "path": str(file)}], str(file)
    yield "one", array, "image 0"
    yield "one of bytes", PHOTO, "image 0"
    yield "generator", (a for a in [array]), "image 0"
    yield "tuple", (array,), "image 0"


def test_the_verdict_is_the_same_to_the_bit_in_every_form(model, tmp_path, opened):
    torch_of(np.zeros((8, 8, 3), np.uint8))
    expected = model.predict([PHOTO])[0].to_row()
    names = set()
    for name, source, shown in forms(tmp_path / "photo.jpg", opened):
        (row,) = model.predict(source)
        assert row.to_row() | {"path": "image 0"} == expected, name
        assert row.path == shown, name
        names.add(name)
    array = np.array(decode(PHOTO))
    for tensor in (torch_of(array), torch_of(array).float() / 255):
        for source in ([tensor], tensor, tensor[None], (t for t in [tensor])):
            assert model.predict(source)[0].to_row() == expected
    assert len(names) == 21


def test_decoded_forms_are_one_content_in_the_store(tmp_path):
    model = new_model().fit((SHOTS, LABELS))
    array = np.array(decode(PHOTO))
    model.predict([array])
    for source in ([Image.fromarray(array)], [torch_of(array)], [torch_of(array) / 255]):
        before = model.encoders.vision.n_encoded
        model.predict(source)
        assert model.encoders.vision.n_encoded == before
    # A picture that was opened and not decoded is its file.
    model.predict([PHOTO])
    before = model.encoders.vision.n_encoded
    model.predict([Image.open(io.BytesIO(PHOTO)), io.BytesIO(PHOTO)])
    assert model.encoders.vision.n_encoded == before


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "F"])
@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_a_loaded_picture_is_what_its_file_is(mode, protocol):
    image = picture((90, 120, 30), 5).convert(
        "RGB" if mode == "YCbCr" else "L" if ";" in mode else mode
    )
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    if mode in ("RGBA", "LA"):
        image.putalpha(picture((90, 120, 30), 6).convert("L"))
    kind = {"CMYK": "TIFF", "F": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    content = encoded(image, kind)
    opened = Image.open(io.BytesIO(content))
    opened.load()
    model = new_model(protocol=protocol).fit((SHOTS, LABELS))
    if mode in ("I;16", "F") and protocol == "paper":
        pytest.skip("the range of such pictures is not that of colours")
    assert model.predict([opened])[0].to_row() == model.predict([content])[0].to_row()


@pytest.mark.parametrize("kind", ["transparent palette", "colour key", "grey key", "premultiplied"])
def test_transparency_is_kept(kind):
    image = picture((90, 120, 30), 5)
    options = {}
    if kind == "transparent palette":
        image = image.quantize(8)
        options = {"transparency": 3}
    elif kind == "colour key":
        options = {"transparency": image.getpixel((3, 3))}
    elif kind == "grey key":
        image = image.convert("L")
        options = {"transparency": image.getpixel((3, 3))}
    content = encoded(image, **options)
    opened = Image.open(io.BytesIO(content))
    opened.load()
    if kind == "premultiplied":
        opened = opened.convert("RGBA").convert("RGBa")
    ((_, result),) = read([opened])
    assert result.tobytes() == decode(content).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_pictures_are_turned_upright_once(orientation, mode, tmp_path, opened):
    image = picture((90, 120, 30), 5).resize((40, 24)).convert(mode)
    file = tmp_path / "lying.png"
    image.save(file, exif=turned(image, orientation))
    upright = decode(file)
    lazy, loaded = opened(file), opened(file)
    loaded.load()
    by_hand = ImageOps.exif_transpose(opened(file))
    for held in (lazy, loaded, by_hand):
        ((_, result),) = read([held])
        assert result.size == upright.size
        assert result.tobytes() == upright.tobytes()


def test_what_was_changed_is_not_read_from_its_file(tmp_path, opened):
    file = tmp_path / "a.png"
    picture((200, 0, 0), 1).save(file)
    changed = opened(file)
    changed.paste((0, 0, 255), (0, 0, 32, 32))
    assert set(pixels([changed])[0].reshape(-1, 3)[:, 2]) == {255}
    frames = [picture(colour, 3) for colour in COLOURS.values()]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    first = opened(tmp_path / "a.gif")
    first.paste(200, (0, 0, 32, 32))
    assert len(np.unique(pixels([first])[0].reshape(-1, 3), axis=0)) == 1, "one colour"
    second = opened(tmp_path / "a.gif")
    second.seek(1)
    assert pixels([second])[0][..., 1].mean() > 2 * pixels([second])[0][..., 0].mean()


def test_arrays_of_one_and_four_bands():
    grey = np.asarray(picture((90, 120, 30), 5).convert("L"))
    expected = np.repeat(grey[..., None], 3, axis=2)
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(pixels([array])[0], expected)
    rgba = np.dstack([expected, np.full_like(grey, 0)])
    assert set(pixels([rgba])[0].ravel()) == {255}, "composited over white"
    torch = pytest.importorskip("torch")
    for tensor in (torch.tensor(grey), torch.tensor(grey)[None]):
        np.testing.assert_array_equal(pixels([tensor])[0], expected)


def test_float_tensors_are_read_as_torchvision_reads_them():
    torch = pytest.importorskip("torch")
    values = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    # The definition of torchvision's to_pil_image.
    expected = values.mul(255).byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels([values])[0], expected)
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        came_back = pixels([(every.float() / 255).to(kind).requires_grad_()])[0]
        np.testing.assert_array_equal(came_back[..., 0], every[0].numpy())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((8, 8, 3)), r"image 1 .*uint8, but got float64.*\* 255"),
        (np.zeros((8, 8, 3), np.uint16), "uint8, but got uint16"),
        (np.zeros((8, 8, 3), bool), "uint8, but got bool"),
        (np.zeros((3, 8, 9), np.uint8), r"colours first: pass array.transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 2), np.uint8), r"but got shape \(8, 8, 2\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "a source of its own"),
        (np.zeros(8, np.uint8), r"shape \(8,\)"),
        (3, "image 1 .*but got a int"),
        (b"".decode, "but got a builtin_function"),
        ([b""], "but got a list"),
        ((b"", "cat"), "but got a tuple"),
        ({"pixels": 3}, "but got a dict"),
    ],
)
def test_a_wrong_type_is_an_error_with_index_and_type(model, value, message):
    with pytest.raises(InputError, match=message):
        model.predict([SHOTS[0], value])
    with pytest.raises(InputError, match=message):
        list(model.iter_predict(iter([SHOTS[0], value])))
    with pytest.raises(InputError, match=message):
        find_labelled(([SHOTS[0], value], ["red", "blue"]))


def test_wrong_tensors(model):
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"colours last: pass tensor.permute\(2, 0, 1\)"):
        model.predict([torch.zeros(8, 9, 3)])
    with pytest.raises(InputError, match=r"torch\.int64"):
        model.predict([torch.zeros(3, 8, 8, dtype=torch.int64)])
    with pytest.raises(InputError, match="source of its own"):
        model.predict([torch.zeros(2, 3, 8, 8)])
    with pytest.raises(InputError, match=r"\(N, C, H, W\)"):
        model.predict(torch.zeros(2, 2, 3, 8, 8))
    bad = [torch.full((3, 8, 8), value) for value in (-0.1, 1.1, float("nan"))]
    rows = model.predict([*bad, torch.ones(3, 8, 8)])
    assert rows.column("decision")[:3] == ["error"] * 3
    assert all("normalises" in row.error for row in rows[:3])
    assert rows[3].error == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "but got a int"),
        (None, "but got a NoneType"),
        (np.zeros((5, 8, 8, 8, 3), np.uint8), r"\(N, H, W, C\), but got shape"),
        (np.zeros(5), r"\(N, H, W, C\), but got shape"),
        (np.zeros((5, 8, 8), np.uint8), r"but got shape \(5, 8, 8\)"),
        ([], "at least one image"),
        ({}, "at least one image"),
        (np.zeros((0, 8, 8, 3), np.uint8), "at least one image"),
    ],
)
def test_a_wrong_source_is_an_error(model, source, message):
    with pytest.raises(InputError, match=message):
        model.predict(source)


def test_what_cannot_be_read_is_a_row(model, tmp_path):
    file = tmp_path / "a.png"
    picture((200, 0, 0), 1).save(file)
    closed, text, texts = file.open("rb"), io.StringIO("text"), file.open()
    closed.close()
    with Image.open(file) as closed_image:
        pass
    cut = Image.open(io.BytesIO(file.read_bytes()[:300]))
    empty = np.zeros((0, 8, 3), np.uint8)
    small = np.zeros((4, 4, 3), np.uint8)
    bad = [
        closed,
        text,
        texts,
        closed_image,
        cut,
        empty,
        small,
        None,
        float("nan"),
        b"",
        b"text",
        "gone.png",
    ]
    rows = model.predict([*bad, file])
    assert rows.column("decision")[:-1] == ["error"] * len(bad)
    errors = rows.column("error")
    for error, words in zip(
        errors,
        ["is closed", 'mode "rb"', 'mode "rb"', "", "", "no pixels", "4 x 4", "no image here",
         "no image here", "empty", "", "no such file"],
        strict=False,
    ):  # fmt: skip
        assert error
        assert words in error
    assert rows[7].path == "image 7"
    assert rows[-1].error == ""
    texts.close()


def test_files_are_left_where_they_were(model, tmp_path):
    stream = io.BytesIO(PHOTO)
    stream.seek(5)
    assert model.predict([stream, stream])[1].error == ""
    assert stream.tell() == 5
    with Image.open(io.BytesIO(PHOTO)) as opened:
        model.predict([opened])
        opened.load()  # it can still be used


def test_a_pipe_is_read_once(model):
    class Pipe(io.RawIOBase):
        left = PHOTO

        def readable(self):
            return True

        def read(self, size=-1):
            piece, self.left = self.left[:size], self.left[size:]
            return piece

    assert model.predict([Pipe()])[0].error == ""


def test_limits_hold_for_what_is_held():
    image = Image.new("RGB", (100, 50))
    for held in (image, np.asarray(image)):
        (ref,) = open_images([held])
        with pytest.raises(ImageError, match="100 x 50") as caught:
            ref.read(Limits(max_pixels=4000))
        assert caught.value.kind == "too_large"
        # What would be too many bytes as it is, fits when it is compressed.
        assert decode(ref.read(Limits(max_bytes=4000)), Limits(max_bytes=4000)).size == (100, 50)
    (ref,) = open_images([io.BytesIO(PHOTO)])
    with pytest.raises(ImageError, match="at most 100"):
        ref.read(Limits(max_bytes=100))


# Several pictures: order, names, labels.


def colours_of(source, **options):
    """Name the colour of each picture, by its pixels."""
    found = (array.reshape(-1, 3).mean(axis=0) for array in pixels(source, **options))
    return [min(COLOURS, key=lambda c: np.abs(mean - COLOURS[c]).sum()) for mean in found]


def test_mixed_lists_keep_their_order(model, tmp_path):
    for name in COLOURS:
        (tmp_path / "folder").mkdir(exist_ok=True)
        picture(COLOURS[name], 1).save(tmp_path / "folder" / f"{name}.png")
    red, green, blue = (picture(colour, 2) for colour in COLOURS.values())
    source = [
        blue,
        tmp_path / "folder",
        np.asarray(red),
        str(tmp_path / "folder" / "red.png"),
        encoded(green),
    ]
    assert colours_of(source) == ["blue", "blue", "green", "red", "red", "red", "green"]
    names = [name for name, _ in read(source)]
    assert names[0] == "image 0"
    assert names[4] == "image 2"
    assert names[6] == "image 4"
    assert colours_of(iter(source)) == colours_of(source)
    assert [name for name, _ in read(iter(source))] == names
    assert model.predict(iter(source)).column("path") == names


def test_a_generator_may_write_over_its_picture():
    def frames():
        frame = np.zeros((16, 16, 3), np.uint8)
        for colour in list(COLOURS.values()) * 3:
            frame[:] = colour
            yield frame

    assert colours_of(frames()) == list(COLOURS) * 3
    pairs = ((frame, str(i)) for i, frame in enumerate(frames()))
    assert [decode(r.read()).getpixel((0, 0)) for r in find_labelled(pairs).refs] == list(
        COLOURS.values()
    ) * 3


def test_a_generator_may_close_its_files(tmp_path):
    def opened():
        for name, colour in COLOURS.items():
            picture(colour, 1).save(tmp_path / f"{name}.png")
            with Image.open(tmp_path / f"{name}.png") as image:
                yield image

    assert colours_of(opened()) == list(COLOURS)


def test_an_endless_generator_is_read_as_it_comes(model):
    def endless():
        while True:
            yield SHOTS[0]

    verdicts = model.iter_predict(endless())
    assert [next(verdicts).path for _ in range(3)] == ["image 0", "image 1", "image 2"]


class Busy(io.BytesIO):
    """Says when a second thread moves its position in the middle of a reading."""

    at_work = 0
    most = 0

    def seek(self, *position):
        self.at_work += position == (0,)
        self.most = max(self.most, self.at_work)
        time.sleep(0.002)
        return super().seek(*position)

    def read(self, *size):
        content = super().read(*size)
        self.at_work -= 1
        return content


def test_one_picture_in_a_list_twice_is_read_by_one_thread_at_a_time():
    file = Busy(PHOTO)
    file.seek(3)  # so that it is not put back to its beginning
    refs = find_images([file] * 32)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda ref: ref.read(), refs)) == {PHOTO}
    assert file.most == 1


def test_labels_stay_with_their_pictures_in_every_grammar():
    arrays = np.stack([np.asarray(image) for image in SHOTS])
    sources = {
        "lists": (SHOTS, LABELS),
        "array": (arrays, np.array(LABELS)),
        "pairs": list(zip(SHOTS, LABELS, strict=True)),
        "lists of two": [list(pair) for pair in zip(SHOTS, LABELS, strict=True)],
        "iterator": zip(SHOTS, LABELS, strict=True),
        "generator": ((array, label) for array, label in zip(arrays, LABELS, strict=True)),
        "mapping": ({f"{i}.png": image for i, image in enumerate(SHOTS)}, LABELS),
        "iterators": (iter(SHOTS), iter(LABELS)),
    }
    for name, source in sources.items():
        listed = find_labelled(source)
        assert listed.labels == LABELS, name
        assert colours_of([ref.source for ref in listed.refs]) == LABELS, name
    torch = pytest.importorskip("torch")
    listed = find_labelled((torch.from_numpy(arrays).permute(0, 3, 1, 2), LABELS))
    assert colours_of([ref.source for ref in listed.refs]) == LABELS


def test_two_pairs_are_no_pair_of_lists():
    red, blue = SHOTS[0], SHOTS[2]
    listed = find_labelled([(red, "red"), (blue, "blue")])
    assert listed.labels == ["red", "blue"]
    assert find_labelled([("a.png", "red"), ("b.png", "blue")]).labels == ["red", "blue"]
    assert find_labelled([("a.png", "b.png", "c.png"), ("x", "y", "z")]).labels == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([(SHOTS[0], "red"), SHOTS[1]], "a Image at position 1"),
        ([(SHOTS[0], "red", 3)] * 3, "a tuple at position 0"),
        (iter([(SHOTS[0], "red"), "ab"]), "a str at position 1"),
        ([(SHOTS[0], 2), (SHOTS[1], 3)], "got 2 at position 0. Write what the number stands for"),
        ((SHOTS, LABELS[:-1]), "12 images and 11 labels"),
        ((SHOTS, "red"), "a label of each image as a list, but got a str"),
        (("a.png", "red"), "pair"),
        ((SHOTS[0], LABELS), "1 images and 12 labels"),
        ({"a.png": SHOTS[0]}, "but got a dict"),
        (SHOTS[0], "of something else"),
        ((SHOTS, 3), "a label of each image as a list"),
    ],
)
def test_what_is_not_labelled_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        find_labelled(source)


def test_the_whole_way_is_that_of_files(tmp_path):
    files = []
    for i, (image, label) in enumerate(zip(SHOTS, LABELS, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        files.append(tmp_path / label / f"{i}.png")
        image.save(files[-1])
    new = [picture(colour, 50 + i) for i in range(10) for colour in COLOURS.values()]
    true = list(COLOURS) * 10
    held, named = new_model().fit((SHOTS, LABELS)), new_model().fit((files, LABELS))
    rows = [[v.to_row() | {"path": ""} for v in model.predict(new)] for model in (held, named)]
    assert rows[0] == rows[1]
    held.calibrate((new[:15], true[:15]), risk=0.3)
    assert held.calibration_ is not None
    result = held.evaluate(list(zip(new[15:], true[15:], strict=True)))
    assert list(result.labels) == [result.class_names.index(name) for name in true[15:]]
    assert result.verdicts.column("path")[:2] == ["image 0", "image 1"]
    verified = held.verify(new, true)
    assert verified.column("label") == true
    assert verified[0].path == "image 0"


def test_given_labels_are_those_of_the_same_picture_in_any_order():
    model = new_model().fit((SHOTS, LABELS))
    new = [picture(colour, 50 + i) for i in range(10) for colour in COLOURS.values()]
    true = list(COLOURS) * 10
    wrong = [*true[:29], "red"]
    # The last is blue: whoever matches by position finds other errors.
    model.calibrate((new, true), given_labels=(new[::-1], wrong[::-1]), risk=0.5)
    errors = model.calibration_.labels != model.calibration_.result.prediction
    assert list(np.flatnonzero(errors)) == [29]


def test_verify_takes_one_picture(model):
    assert model.verify(SHOTS[0], ["red"])[0].label == "red"
    assert Path("image 0").exists() is False
