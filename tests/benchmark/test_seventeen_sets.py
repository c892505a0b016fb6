"""All 17 sets as their archives unpack, in miniature, through `trustvlm bench` with tiny models.

Under `protocol = "paper"` draws and scores are those of the released script, computed anew.
"""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from PIL import Image

from command import Command
from dataset_trees import ZHOU, plant, plant_aircraft, plant_cifar10, plant_cifar100, plant_zhou
from trustvlm import datasets, scores
from trustvlm.benchmark.config import read_config
from trustvlm.benchmark.grid import encode_datasets, run_grid
from trustvlm.embeddings import EmbeddingStore
from trustvlm.scores import zero_shot_logits

pytest.importorskip("torch", reason="needs the extra torch")
pytest.importorskip("transformers", reason="needs the extra torch")
pytest.importorskip("sentencepiece", reason="SigLIP's tokenizer is made with it")

from released_script import Script, draw
from tiny_models import save_tiny_clip, save_tiny_dinov2, save_tiny_siglip

pytestmark = [
    pytest.mark.torch,
    # The counts are not those of the whole sets, and most classes of ImageNet have no shots.
    pytest.mark.filterwarnings("ignore::trustvlm.exceptions.TrustVLMWarning"),
]

# Where the archives put the images, and under which folder: torchvision's, CoOp's or the set's own.
UNPACKED = {
    "flowers102": ("flowers-102", "jpg"),
    "dtd": ("DTD", "dtd/images"),
    "pets": ("oxford-iiit-pet", "images"),
    "cars": ("stanford_cars", ""),
    "ucf101": ("UCF101", "UCF-101-midframes"),
    "caltech101": ("Caltech101", "caltech-101/101_ObjectCategories"),
    "food101": ("Food101", "food-101/images"),
    "sun397": ("SUN397", ""),
    "eurosat": ("EuroSAT", "EuroSAT_RGB"),
}
NAMES = ("zebra", "golden_retriever", "annual crop land")
# Three classes that ImageNet-A and ImageNet-R both have.
CLASSES = [datasets.imagenet_classes()[i] for i in (6, 11, 13)]


def rows(prefix, splits=(("train", 3), ("val", 1), ("test", 4))):
    return {
        split: [[f"{prefix}/{split}{c}{i}.jpg", c, NAMES[c]] for c in range(3) for i in range(n)]
        for split, n in splits
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The 17 sets under one folder, and their split files in another."""
    top = tmp_path_factory.mktemp("sets")
    data, splits = top / "data", top / "splits"
    for name in ZHOU:
        folder, images = UNPACKED[name]
        part = "cars_train" if name == "cars" else "part"
        plant_zhou(data, name, rows=rows(part), folder=folder, images=images, splits_dir=splits)
    lists = {
        split: [f"{split}{c}{i} {name}" for c, name in enumerate(NAMES) for i in range(2)]
        for split in ("train", "val", "test")
    }
    made = plant_aircraft(top / "made", lists, "".join(f"{name}\n" for name in NAMES))
    (data / "fgvc-aircraft-2013b").mkdir()
    made.rename(data / "fgvc-aircraft-2013b" / "data")
    wnids = [c.wnid for c in CLASSES]
    plant(data / "ImageNet" / "train", (f"{w}/{i}.JPEG" for w in wnids for i in range(3)), seed=1)
    plant(data / "ImageNet" / "val", (f"{w}/{i}.JPEG" for w in wnids for i in range(4)), seed=2)
    relatives = ("imagenet-a/imagenet-a", "imagenet-r", "imagenet-sketch/sketch")
    for seed, folder in enumerate(relatives):
        plant(data / folder, (f"{w}/{i}.jpg" for w in wnids for i in range(4)), seed=3 + seed)
    numbers = [c.index for c in CLASSES]
    v2 = data / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    plant(v2, (f"{c}/{i}.jpeg" for c in numbers for i in range(4)), seed=9)
    plant_cifar10(data / "cifar10")
    plant_cifar100(data)
    return top


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    top = tmp_path_factory.mktemp("hub")
    save_tiny_clip(top / "clip")
    save_tiny_siglip(top / "siglip")
    save_tiny_dinov2(top / "dinov2")
    return top


STUDY = """
name = "seventeen"
out = "{out}"
shots = [2]
scores = ["MSP", "image_similarity", "TrustVLM", "TrustVLM*"]
protocols = ["paper"]
preset = "paper"
studies = []
device = "cpu"
"""


def write_study(folder, root, hub, names, models, further=""):
    text = STUDY.format(out=folder / "results")
    for vlm, prompt in models:
        text += f'[[models]]\nvlm = "hf:{hub / vlm}"\nvision = "same"\nprompt = "{prompt}"\n'
    for name in names:
        text += f'[[datasets]]\nname = "{name}"\n'
        text += f'root = "{root / "data"}"\nsplits_dir = "{root / "splits"}"\n'
    path = folder / "study.toml"
    path.write_text(text + further)
    return path


MODELS = list(product(("clip", "siglip"), ("a photo of a {}.", "coop")))


@pytest.mark.slow
def test_every_set_model_and_prompt_is_a_cell(root, hub, tmp_path, capsys, monkeypatch):
    study = write_study(tmp_path, root, hub, datasets.names(), MODELS)
    done = Command(capsys, monkeypatch)("bench", study, "--no-page")
    assert done.code == 0, done.err
    lines = (tmp_path / "results" / "rows.jsonl").read_text().splitlines()
    by_cell = {}
    for row in map(json.loads, lines):
        by_cell.setdefault((row["dataset"], row["vlm"], row["prompt"]), []).append(row)
    assert set(by_cell) == {
        (f"{name}/test", f"hf:{hub / vlm}", prompt)
        for name, (vlm, prompt) in product(datasets.names(), MODELS)
    }
    names = ["msp", "image_similarity", "trustvlm", "trustvlm_star"]
    for (dataset, _, prompt), cell in by_cell.items():
        name = dataset.removesuffix("/test")
        assert [row["score"] for row in cell] == names
        wanted = [prompt] if "{" in prompt else list(datasets.prompt_templates("coop", name))
        assert {json.dumps(row["templates"]) for row in cell} == {json.dumps(wanted)}
        images = {"aircraft": 6, "cifar10": 2, "cifar100": 2}.get(name, 12)
        assert {row["n"] for row in cell} == {images}
        assert all(0 <= row["aurc"] <= 1 for row in cell)
    # What is finished is not computed again, and the page is for another time.
    assert "68 cells computed" in done.err
    assert not (tmp_path / "results" / "index.html").exists()
    again = Command(capsys, monkeypatch)("bench", study, "--no-page")
    assert "0 cells computed" in again.err
    assert (tmp_path / "results" / "rows.jsonl").read_text().splitlines() == lines


def test_the_released_reading_of_imagenet_runs_too(root, hub, tmp_path):
    """1000 names for 200 classes, folders sorted as text, and shots that are test images."""
    names = ["imagenet", "imagenet-a", "imagenet-v2"]
    models = [("clip", "a photo of a {}.")]
    path = write_study(tmp_path, root, hub, names, models)
    store = EmbeddingStore.memory()
    published = run_grid(read_config(path), store=store)
    path.write_text('imagenet_rules = "released"\n' + path.read_text())
    config = read_config(path)
    released = run_grid(config, store=store)
    assert not [row for row in (*published.rows, *released.rows) if row.get("error")]
    assert [row["dataset"] for row in released.rows[::4]] == [
        "imagenet/test-shots-of-test",
        "imagenet-a/test-1000-names-shots-of-test",
        "imagenet-v2/test-text-order-shots-of-test",
    ]
    assert {row["n"] for row in released.rows} == {12}
    assert sum("and kept" in note for note in released.notes) == 3
    encoded = {e.name: e for e in encode_datasets(config, store, notes=[])}
    assert [e.support.n_classes for e in encoded.values()] == [1000, 1000, 1000]
    labels = {name: sorted(set(e.tests[0].labels.tolist())) for name, e in encoded.items()}
    # The folders 11, 13 and 6, in this order, are classes 0, 1 and 2 to the script.
    expected = {"imagenet": [6, 11, 13], "imagenet-a": [6, 11, 13], "imagenet-v2": [0, 1, 2]}
    assert labels == expected


# The released script, computed anew.


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Images whose crop is off the centre by half a pixel, of a set with a split file."""
    top = tmp_path_factory.mktemp("pictures")
    listed = rows("part", (("train", 7), ("val", 1), ("test", 8)))
    home = plant_zhou(top / "data", "food101", rows=listed)
    rng = np.random.default_rng(0)
    for number, (path, label, _) in enumerate(row for part in listed.values() for row in part):
        shape = ((45, 72, 3), (64, 33, 3), (51, 51, 3))[number % 3]
        noise = np.kron(rng.normal(0, 60, (9, 9, 3)), np.ones((8, 8, 1)))[: shape[0], : shape[1]]
        colour = np.eye(3)[label] * 120 + 70
        pixels = np.clip(np.resize(noise, shape) + colour, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(home / "images" / path, format="PNG")
    return top, home / "images", listed


@pytest.mark.parametrize("prompt", ["a photo of a {}.", "coop"])
def test_draw_and_scores_are_those_of_the_released_script(pictures, hub, tmp_path, prompt):
    """`protocol = "paper"`, the released weight and temperature of Food101, every image."""
    top, images, listed = pictures
    path = tmp_path / "study.toml"
    path.write_text(
        STUDY.format(out=tmp_path / "results").replace("[2]", "[4]")
        + f'convention = "trustvlm"\n[[models]]\nvlm = "hf:{hub / "clip"}"\n'
        f'vision = "hf:{hub / "dinov2"}"\nprompt = "{prompt}"\n'
        f'[[datasets]]\nname = "food101"\nroot = "{top / "data"}"\n'
    )
    config, store = read_config(path), EmbeddingStore.memory()
    grid = run_grid(config, store=store)
    (encoded,) = encode_datasets(config, store, notes=[])
    train = listed["train"]
    chosen = draw([label for _, label, _ in train], 3, 4)
    used = np.unique(chosen)
    assert used[encoded.draws[4, 0]].tolist() == chosen
    template = {"coop": "a photo of {}, a type of food."}.get(prompt, prompt)
    script = Script(hub / "clip", hub / "dinov2", 32, template)
    shots = [(images / train[i][0], train[i][1]) for i in chosen]
    tests = [images / row[0] for row in listed["test"]]
    truth = np.array([row[1] for row in listed["test"]])
    for score, temperature in (("trustvlm", None), ("trustvlm_star", 0.1)):
        judged = script.judge(shots, tests, NAMES, weight=1.0, temperature=temperature)
        confidence, correct = grid.samples["food101/test", score, encoded.setting]
        np.testing.assert_allclose(confidence, judged.confidence, atol=1e-6, rtol=0)
        right = np.array(judged.prediction) == truth
        assert correct.tolist() == right.tolist()
        # Their metrics too, in the script's way: images in order of confidence, ties as they come.
        order = np.argsort(-np.array(judged.confidence), kind="stable")
        risks = np.cumsum(~right[order]) / np.arange(1, len(right) + 1)
        (row,) = [row for row in grid.rows if row["score"] == score]
        assert row["aurc"] == pytest.approx(risks.mean(), abs=1e-6)
        assert row["accuracy"] == right.mean()
        assert row["parameters"]["weight"] == 1.0
    assert 0 < right.mean() < 1


def test_real_clip_gives_the_recorded_logits_and_probabilities(data_root):
    """One image and three texts through CLIP ViT-B/32 itself, recorded elsewhere."""
    file = data_root.parent / "golden" / "clip_vitb32_one_image.npz"
    if not file.is_file():
        pytest.skip("the recorded arrays are not beside the image sets")
    with np.load(file) as recorded:
        logits = zero_shot_logits(
            recorded["image_embeddings"], recorded["text_embeddings"], logit_scale=100.0
        )
        np.testing.assert_allclose(logits, recorded["logits"], atol=1e-5, rtol=0)
        result = scores.compute("msp", logits=recorded["logits"])
        assert result.confidence == pytest.approx(recorded["probabilities"].max(), abs=1e-6)
        assert result.prediction == recorded["probabilities"].argmax()
