"""A plain script that does what research code does, against `trustvlm`, on the same images.

    python benchmarks/plain_script.py DATA [--classes 100 1000] [--examples 40] [--images 64]

DATA holds `caltech101/{train,test}/<class folder>/*`. Both load CLIP ViT-B/16 and DINOv2-base with
random weights of the real sizes, make prototypes from one example for each of the first classes,
the others having none, and judge the images with the score TrustVLM. The plain script, written from
the paper, runs CLIP's text tower on the padded prompts of all classes again for every batch, makes
one forward pass per class for the prototypes, loops over images and metrics in Python, reads every
image once for each encoder, and runs in float32. A second script differs in one thing: it encodes
the texts once, before the first batch. `trustvlm` starts with an empty store each time, and runs in
float32 and in bfloat16. Loading the weights is part of all.

Random weights say nothing about right or wrong: 60 % of the labels, chosen at random, are what the
plain script predicts, so that both implementations can be held against the same labels.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import machine
from random_models import save_clip_vit_b16, save_dinov2_base
from trustvlm import TrustVLM, metrics
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.images import find_labelled
from trustvlm.models.offline.encoders import imagenet_names

BATCH = 32


class Result(NamedTuple):
    """Predictions and confidences of n images, and seconds by the clock and the processor."""

    prediction: np.ndarray
    confidence: np.ndarray
    seconds: float
    processor: float


class Clock:
    """Seconds of wall and processor since it was made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]


def plain_script(
    folder: Path,
    names: list[str],
    shots: list[tuple[str, int]],
    images: list[str],
    texts_once: bool = False,
) -> Result:
    """Label images as a script of a page does; `texts_once` keeps the texts of the first batch."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, Dinov2Model

    clock = Clock()
    clip = CLIPModel.from_pretrained(folder / "clip").eval()
    dino = Dinov2Model.from_pretrained(folder / "dinov2").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "clip")
    clip_processor = AutoImageProcessor.from_pretrained(folder / "clip")
    dino_processor = AutoImageProcessor.from_pretrained(folder / "dinov2")
    prompts = [f"a photo of a {name}." for name in names]

    def read(processor: Any, paths: list[str]) -> Any:
        opened = [Image.open(path).convert("RGB") for path in paths]
        return processor(images=opened, return_tensors="pt")["pixel_values"]

    predictions, confidences = [], []
    text: Any = None
    with torch.no_grad():
        prototypes = torch.zeros(len(names), 768)
        for c in range(len(names)):
            mine = [path for path, label in shots if label == c]
            if mine:
                tokens = dino(pixel_values=read(dino_processor, mine)).last_hidden_state
                mean = tokens.mean(dim=1).mean(dim=0)
                prototypes[c] = mean / mean.norm()
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            if text is None or not texts_once:
                tokens = tokenizer(
                    prompts,
                    padding="max_length",
                    max_length=77,
                    truncation=True,
                    return_tensors="pt",
                )
                text = clip.get_text_features(**tokens).pooler_output
                text = text / text.norm(dim=-1, keepdim=True)
            image = clip.get_image_features(pixel_values=read(clip_processor, batch)).pooler_output
            image = image / image.norm(dim=-1, keepdim=True)
            feature = dino(pixel_values=read(dino_processor, batch)).last_hidden_state.mean(dim=1)
            feature = feature / feature.norm(dim=-1, keepdim=True)
            logits = clip.logit_scale.exp() * image @ text.T
            for i in range(len(batch)):
                probability = logits[i].softmax(dim=-1)
                prediction = int(probability.argmax())
                similarity = feature[i] @ prototypes[prediction]
                predictions.append(prediction)
                confidences.append(float(probability[prediction] + similarity))
    plain_metrics(confidences)
    return Result(np.array(predictions), np.array(confidences), *clock.read())


def plain_metrics(confidences: list[float]) -> tuple[float, float]:
    """AUROC and AURC by loops, every second label being right: for the time alone."""
    correct = [i % 2 == 0 for i in range(len(confidences))]
    wins = pairs = 0.0
    for a, right in zip(confidences, correct, strict=True):
        for b, other in zip(confidences, correct, strict=True):
            if right and not other:
                pairs += 1
                wins += 1.0 if a > b else 0.5 if a == b else 0.0
    errors, risk = 0, 0.0
    for k, i in enumerate(sorted(range(len(confidences)), key=lambda i: -confidences[i]), start=1):
        errors += not correct[i]
        risk += errors / k
    return wins / pairs, risk / len(confidences)


def with_trustvlm(
    folder: Path, names: list[str], shots: list[tuple[str, int]], images: list[str], precision: str
) -> Result:
    """Do the same with the package, from nothing."""
    clock = Clock()
    model = TrustVLM(
        f"hf:{folder / 'clip'}",
        f"hf:{folder / 'dinov2'}",
        names,
        score="trustvlm",
        precision=precision,
        store=EmbeddingStore.memory(),
        batch_size=BATCH,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)  # most classes have no example
        model.fit(([path for path, _ in shots], [names[label] for _, label in shots]))
    verdicts = model.predict(images)
    confidence = np.array([verdict.confidence for verdict in verdicts])
    metrics.evaluate(confidence, np.arange(len(images)) % 2 == 0)
    index = {label: c for c, label in enumerate(model.classes_.labels)}
    prediction = np.array([index[verdict.label] for verdict in verdicts])
    return Result(prediction, confidence, *clock.read())


def material(data: Path, n: int) -> tuple[list[str], list[tuple[str, int]], list[str]]:
    """Return 100 class names, one example of each, and n images."""
    train, test = (find_labelled(data / "caltech101" / split) for split in ("train", "test"))
    folders = sorted({str(ref.label) for ref in train.refs})
    first: dict[str, str] = {}
    for ref in train.refs:
        first.setdefault(str(ref.label), str(data / "caltech101/train" / ref.path))
    paths = [str(data / "caltech101/test" / ref.path) for ref in test.refs]
    shots = [(first[folder], c) for c, folder in enumerate(folders)]
    return [f.replace("_", " ") for f in folders], shots, paths[:: len(paths) // n][:n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    names, shots, images = material(options.data, options.images)
    # Of names that differ in capitals alone (a dog and a jacket, say) the first.
    first = {name.casefold(): name for name in reversed((*names, *imagenet_names()))}
    more = [name for name in first.values() if name not in names][::-1]
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        save_clip_vit_b16(Path(folder) / "clip")
        save_dinov2_base(Path(folder) / "dinov2")
        for n_classes in options.classes:
            classes = [*names, *more][:n_classes]
            compare(Path(folder), classes, shots[: options.examples], images, options.rounds)


def compare(
    folder: Path, names: list[str], shots: list[tuple[str, int]], images: list[str], rounds: int
) -> None:
    """Let the four take turns, and print times, agreement, and speed beside both scripts."""
    results_of: dict[str, list[Result]] = {
        "plain": [],
        "plain, texts once": [],
        "float32": [],
        "bfloat16": [],
    }
    for _ in range(rounds):
        results_of["plain"].append(plain_script(folder, names, shots, images))
        once = plain_script(folder, names, shots, images, texts_once=True)
        results_of["plain, texts once"].append(once)
        for precision in ("float32", "bfloat16"):
            results_of[precision].append(with_trustvlm(folder, names, shots, images, precision))
    plain = results_of["plain"][0]
    right = np.random.default_rng(0).random(len(images)) < 0.6
    labels = np.where(right, plain.prediction, -1)
    print(f"\n{len(names)} classes, {len(shots)} examples, {len(images)} images")
    for name, results in results_of.items():
        seconds = statistics.median(result.seconds for result in results)
        processor = statistics.median(result.processor for result in results)
        print(f"  {name:18}{seconds:8.1f} s, {processor:.1f} s of the processor", flush=True)
        for script in ("plain", "plain, texts once"):
            pairs = list(zip(results_of[script], results, strict=True))
            wall = statistics.median(p.seconds / r.seconds for p, r in pairs)
            processor = statistics.median(p.processor / r.processor for p, r in pairs)
            print(f"    {wall:.2f} times as fast as {script} ({processor:.2f} by processor time)")
        print(f"    {agreement(plain, results[0], labels)}", flush=True)


def agreement(plain: Result, other: Result, labels: np.ndarray) -> str:
    """Say how far two results agree."""
    aurocs = [
        metrics.auroc(result.confidence, result.prediction == labels) for result in (plain, other)
    ]
    difference = np.abs(plain.confidence - other.confidence).max()
    same = np.mean(plain.prediction == other.prediction)
    auroc = "none" if math.isnan(aurocs[0]) else f"{100 * abs(aurocs[0] - aurocs[1]):.3f} points"
    return f"predictions equal {same:.2%}, confidence within {difference:.1e}, AUROC within {auroc}"


if __name__ == "__main__":
    main()
