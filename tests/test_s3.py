"""Images, outputs and models in buckets, on a server that speaks S3."""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
import threading
from pathlib import Path

import pytest

from command import Command
from pictures import write_class_folders
from trustvlm import TrustVLM
from trustvlm.exceptions import ArtefactError, ImageError, InputError, OutputError
from trustvlm.files import write_bytes
from trustvlm.images import Limits, find_images, find_labelled
from trustvlm.images.locations import RemoteImage
from trustvlm.pipeline import artefact
from trustvlm.pipeline.artefact import read_artefact, write_artefact
from trustvlm.storage import RemoteFolder

pytestmark = [
    pytest.mark.s3,
    # Of the server and of botocore, not of what is tested.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture
def trustvlm(capsys, monkeypatch):
    """Run the command line in this process."""
    return Command(capsys, monkeypatch)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Class folders of five pictures each."""
    return write_class_folders(tmp_path_factory.mktemp("s3") / "photos", per_class=5)


@pytest.fixture
def files(bucket):
    """The bucket as s3fs has it."""
    import s3fs

    return s3fs.S3FileSystem()


@pytest.fixture
def photos(bucket, files, pictures) -> str:
    """The URL of the same pictures in a bucket, with what a console leaves beside them."""
    url = f"{bucket}/photos"
    files.put(f"{pictures}/", f"{url}/", recursive=True)
    for folder in ("photos/", "photos/red/"):
        files.call_s3("put_object", Bucket=bucket[5:], Key=folder, Body=b"")
    return url


def keys(files, bucket) -> list[str]:
    """Everything in a bucket, without its name."""
    files.invalidate_cache()
    return sorted(name.partition("/")[2] for name in files.find(bucket))


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def verdicts(table: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [(Path(row["path"]).as_posix(), row["label"], row["confidence"]) for row in table]


def test_a_prefix_is_a_folder(photos, pictures, files):
    remote, local = find_images(photos), find_images(pictures)
    assert [image.path for image in remote] == [image.path for image in local]
    assert not remote.skipped, "objects that stand for folders are no files"
    assert [image.read() for image in remote] == [image.read() for image in local]
    labelled = find_labelled(f"{photos}/")
    assert labelled.counts == {"blue": 5, "green": 5, "red": 5}
    assert labelled.labels == find_labelled(pictures).labels


def test_odd_names_and_objects(bucket, files, pictures):
    content = (pictures / "red" / "00.png").read_bytes()
    for name in ("a b#\u00fc%20?x=1.png", "[1].png", "a+b&c.png"):
        files.pipe_file(f"{bucket}/odd/{name}", content)
    files.pipe_file(f"{bucket}/odd/empty.png", b"")
    images = find_images(f"{bucket}/odd")
    assert len(images) == 4
    assert [image.read() for image in images[:3]] == [content] * 3
    with pytest.raises(ImageError, match="the file is empty"):
        images[3].read()
    with pytest.raises(ImageError, match="at most 1,000 are read"):
        images[0].read(Limits(max_bytes=1000))
    with pytest.raises(ImageError) as caught:
        RemoteImage("gone.png", f"{bucket}/odd/gone.png").read()
    assert caught.value.kind == "missing"


def test_a_server_that_keeps_silent_costs_no_more_than_the_time_allowed(bucket, monkeypatch):
    import socket

    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(ImageError, match=r"took longer than 0.5 s") as caught:
            RemoteImage("a.png", f"{bucket}/a.png").read(Limits(seconds=0.5))
        assert caught.value.kind == "too_slow"
    s3fs.S3FileSystem.clear_instance_cache()


def test_every_kind_of_input_gives_the_same_rows(
    bucket, files, photos, pictures, odd_model, trustvlm, tmp_path
):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    model, plugin = odd_model
    names = sorted(p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png"))
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        for name in names:
            archive.add(pictures / name, name)
    table = {"path": names, "image": [(pictures / name).read_bytes() for name in names]}
    parquet.write_table(pyarrow.table(table), tmp_path / "p.parquet")
    (tmp_path / "beside.csv").write_text("path\n" + "\n".join(f"photos/{n}" for n in names))
    (tmp_path / "urls.txt").write_text("\n".join(f"{photos}/{name}" for name in names))
    for file in tmp_path.iterdir():
        files.put_file(str(file), f"{bucket}/{file.name}")
    local = trustvlm("predict", model, pictures, "--plugin", plugin)
    expected = verdicts(rows(local.out))
    assert len(expected) == 15
    for source in ("photos", "p.tar", "p.parquet", "beside.csv", "urls.txt", "*.tar"):
        done = trustvlm("predict", model, f"{bucket}/{source}", "--plugin", plugin)
        assert done.code == 0, done.err
        got = [
            (path[-len(e[0]) :], *rest)
            for (path, *rest), e in zip(verdicts(rows(done.out)), expected, strict=True)
        ]
        assert got == expected, source
    # A list here may name what is there.
    done = trustvlm("predict", model, tmp_path / "urls.txt", "--plugin", plugin)
    assert [row["path"] for row in rows(done.out)] == [f"{photos}/{name}" for name in names]


def test_a_model_in_a_bucket_does_all_that_one_here_does(
    bucket, files, photos, pictures, odd_model, trustvlm, tmp_path
):
    plugin = ("--plugin", odd_model[1])
    squares = ("--vlm", "squares:x", "--vision", "squares:x", *plugin)
    here, there = tmp_path / "m.trust", f"{bucket}/models/m.trust"
    assert trustvlm("fit", pictures, "-o", here, *squares).code == 0
    done = trustvlm("fit", photos, "-o", there, *squares)
    assert done.code == 0, done.err
    assert f"Next: trustvlm predict {there} PHOTOS" in done.err
    stored = [key for key in keys(files, bucket) if key.startswith("models/")]
    assert len(stored) == 2
    assert re.fullmatch(r"models/m.trust/arrays-[0-9a-f]{16}\.safetensors", stored[0])
    ours = trustvlm("predict", here, pictures, *plugin)
    theirs = trustvlm("predict", there, photos, "-o", f"{bucket}/out/v.csv", *plugin)
    assert theirs.code == 0, theirs.err
    assert files.cat_file(f"{bucket}/out/v.csv").decode() == ours.out
    # Fitted anew in place, and calibrated in place.
    assert trustvlm("fit", photos, "-o", there, *squares).code == 0
    more = write_class_folders(tmp_path / "more", per_class=20, seed=3)
    files.put(f"{more}/", f"{bucket}/more/", recursive=True)
    done = trustvlm("calibrate", there, f"{bucket}/more", "--risk", "0.2", *plugin)
    assert done.code == 0, done.err
    assert f"{there}: calibrated" in done.err
    assert len([key for key in keys(files, bucket) if key.startswith("models/")]) == 2
    others = write_class_folders(tmp_path / "others", seed=8)
    files.put(f"{others}/", f"{bucket}/others/", recursive=True)
    done = trustvlm("evaluate", there, f"{bucket}/others", *plugin)
    assert done.code == 0, done.err
    # What would be lost is asked about, as here.
    done = trustvlm("fit", photos, "-o", there, *squares)
    assert (done.code, "say --overwrite" in done.err) == (1, True)
    assert trustvlm("fit", photos, "-o", there, "--overwrite", *squares).code == 0


def test_a_model_replaces_nothing_but_models(bucket, files):
    files.pipe_file(f"{bucket}/photos/a.jpg", b"mine")
    with pytest.raises(ArtefactError, match=r"'a\.jpg' in it was not written by trustvlm"):
        write_artefact(f"{bucket}/photos", {}, {})
    with pytest.raises(ArtefactError, match="photos exists and is not"):
        artefact.check_target(f"{bucket}/photos")
    assert keys(files, bucket) == ["photos/a.jpg"]
    with pytest.raises(ArtefactError, match=r"s3://\S+ is not a \.trust directory"):
        read_artefact(f"{bucket}/photos")
    with pytest.raises(ArtefactError, match="cannot be reached"):
        write_artefact("s3://there-is-no-such-bucket/m.trust", {}, {})


def test_a_damaged_model_is_not_loaded(bucket, files):
    import numpy as np

    url = f"{bucket}/m.trust"
    write_artefact(url, {"value": 1}, {"a": np.arange(3)})
    name = next(key for key in keys(files, bucket) if "arrays" in key)
    content = files.cat_file(f"{bucket}/{name}")
    files.pipe_file(f"{bucket}/{name}", content[:-1] + b"\x01")
    with pytest.raises(ArtefactError, match="is not the file that the manifest describes"):
        read_artefact(url)
    files.pipe_file(f"{bucket}/{name}", content)
    manifest = files.cat_file(f"{url}/manifest.json")
    files.pipe_file(f"{url}/manifest.json", manifest.replace(b'"value": 1', b'"value": 2'))
    with pytest.raises(ArtefactError, match="was changed after it was written"):
        read_artefact(url)


@pytest.mark.parametrize("lost", ["arrays", "manifest"])
def test_the_older_model_stands_until_the_newer_one_does(lost, bucket, files, monkeypatch):
    import numpy as np

    url = f"{bucket}/m.trust"
    write_artefact(url, {"value": 1}, {"a": np.arange(1)})
    before = keys(files, bucket)
    write = RemoteFolder.write

    def fails(folder, name, content):
        if lost in name:
            raise OSError(5, "no more")
        write(folder, name, content)

    monkeypatch.setattr(RemoteFolder, "write", fails)
    with pytest.raises(ArtefactError, match=r"cannot be reached \(no more\)"):
        write_artefact(url, {"value": 2}, {"a": np.arange(2)})
    assert read_artefact(url)[0]["value"] == 1
    assert keys(files, bucket) == before


def test_readers_see_one_model_or_the_other_while_it_is_replaced(bucket):
    import numpy as np

    url = f"{bucket}/m.trust"
    write_artefact(url, {"value": 0}, {"a": np.full(1, 0)})
    ended, seen = threading.Event(), set()

    def replace():
        for value in range(1, 15):
            write_artefact(url, {"value": value}, {"a": np.full(1, value)})
        ended.set()

    writer = threading.Thread(target=replace)
    writer.start()
    while not ended.is_set():
        manifest, arrays = read_artefact(url)
        assert arrays["a"].tolist() == [manifest["value"]]
        seen.add(manifest["value"])
    writer.join()
    assert len(seen) > 1
    assert read_artefact(url)[0]["value"] == 14


def test_an_output_is_there_whole_or_not_at_all(bucket, files, monkeypatch):
    url = f"{bucket}/out.bin"
    content = bytes(range(256)) * 4 * 2**10 * 110  # 110 MiB go up in parts
    write_bytes(url, b"old")
    call = type(files)._call_s3
    n_parts = []

    async def fails(self, method, *arguments, **parameters):
        if method == "upload_part":
            n_parts.append(parameters["PartNumber"])
            if len(n_parts) == 2:
                raise OSError(5, "the network is gone")
        return await call(self, method, *arguments, **parameters)

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "_call_s3", fails)
        with pytest.raises(OutputError, match=r"out\.bin' cannot be .*the network is gone"):
            write_bytes(url, content)
    assert n_parts
    assert files.cat_file(url) == b"old"
    uploads = files.call_s3("list_multipart_uploads", Bucket=bucket[5:])
    assert not uploads.get("Uploads"), "no part is left to be paid for"
    write_bytes(url, content)
    assert files.cat_file(url) == content


def test_credentials_are_shown_nowhere(bucket, files, photos, odd_model, trustvlm, tmp_path):
    pytest.importorskip("aiohttp")
    model, plugin = odd_model
    signed = [files.sign(f"{photos}/red/0{i}.png") for i in range(2)]
    assert "Signature=" in signed[0]
    (tmp_path / "l.csv").write_text("path,label\n" + "".join(f"{url},red\n" for url in signed))
    lost = signed[0].replace("00.png", "gone.png")
    done = trustvlm("predict", model, tmp_path / "l.csv", lost, "--plugin", plugin)
    assert done.code == 3
    table = rows(done.out)
    assert [row["path"].rpartition("/")[2] for row in table] == ["00.png", "01.png", "gone.png"]
    bulk = trustvlm("predict", model, *signed, "-o", f"{tmp_path}/bulk/", "--plugin", plugin)
    assert bulk.code == 0, bulk.err
    job = (tmp_path / "bulk" / "_trustvlm" / "manifest.json").read_text()
    journal = (tmp_path / "bulk" / "_trustvlm" / "done.jsonl").read_text()
    squares = ("--vlm", "squares:x", "--vision", "squares:x", "--plugin", plugin)
    fit = trustvlm("fit", tmp_path / "l.csv", "-o", tmp_path / "m.trust", *squares)
    assert fit.code == 0, fit.err
    assert len(json.loads((tmp_path / "m.trust" / "manifest.json").read_bytes())["shots"]["images"])
    manifest = (tmp_path / "m.trust" / "manifest.json").read_text()
    refused = trustvlm("predict", model, signed[0], "-o", signed[1], "--plugin", plugin)
    assert refused.code == 1
    for text in (done.out, done.err, bulk.err, job, journal, manifest, fit.err, refused.err):
        assert "Signature" not in text
        assert "AKIA" not in text


def test_what_is_missing_is_named(monkeypatch, odd_model, trustvlm):
    import fsspec

    def missing(url, **_):
        raise ImportError("Install s3fs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    for url, package in (
        ("s3://b/x.csv", r"trustvlm\[s3\]"),
        ("gs://b/x.csv", "pip install gcsfs"),
        ("az://b/x.csv", "pip install adlfs"),
    ):
        done = trustvlm("predict", odd_model[0], "x", "-o", url, "--plugin", odd_model[1])
        assert done.code == 1
        assert re.search(package, done.err), done.err


def test_the_api_takes_urls_too(bucket, photos, odd_model):
    from trustvlm.plugins import load_plugin

    load_plugin(odd_model[1])
    url = f"{bucket}/api.trust"
    model = TrustVLM(vlm="squares:x", vision="squares:x").fit(photos)
    model.save(url)
    assert TrustVLM.load(url).predict(photos)[0].label == model.predict(photos)[0].label
    with pytest.raises(InputError, match="there is no 's3://"):
        model.predict(f"{bucket}/nothing.png")


def test_a_service_answers_by_a_model_in_a_bucket_and_reads_it_again(
    bucket, photos, pictures, odd_model, tmp_path, monkeypatch
):
    pytest.importorskip("fastapi")
    from service import client_of
    from trustvlm.plugins import load_plugin
    from trustvlm.serve.server import feedback_path
    from trustvlm.serve.settings import Settings

    load_plugin(odd_model[1])
    url = Path(f"{bucket}/pets.trust")  # as the command line makes it
    TrustVLM(vlm="squares:x", vision="squares:x").fit(photos).save(url)
    assert feedback_path([url], Settings()) == Path("pets.feedback.sqlite")
    picture = {"images": (pictures / "red" / "00.png").read_bytes()}
    with client_of(url) as client:
        assert client.post("/v1/predict", files=picture).json()["verdicts"][0]["label"] == "red"
        assert client.get("/v1/models").json() == ["pets"]
        other = TrustVLM(vlm="squares:x", vision="squares:x", score="msp").fit(photos)
        other.save(url)
        assert client.post("/v1/reload").status_code == 200
        assert client.get("/v1/model").json()["score"] == "msp"
