"""What a calibrated model says of images of another kind, or in another mix; offline models.

    python benchmarks/shift.py DATA [--risk 0.1] [--shots 16] [--runs 2000]

DATA holds `<set>/{train,test}/<class folder>/*`; of pacs and office_caltech10 also the splits of
other domains. Of each set, the examples are drawn from `train`; one half of `test` calibrates, the
other half is the run of the same kind. The other runs are made of that half: edges, silhouettes on
white, the texture of an image of another class within the silhouette, two classes that make up
nine tenths, and the same images sorted by class; and the splits of other domains.

A row says how many labels are accepted and how many of these are wrong as certified, what is said
of the run, and how many are accepted after it. False alarms are counted on runs drawn from the
images of `test` that a calibration set drawn before left over.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.monitoring.shift import ShiftReference
from trustvlm.pipeline.verdict import Verdicts

Labelled = tuple[list[str], list[str]]
SETS = ("imagenette", "pacs", "office_caltech10")
SIDE = 224


def edges(image: Image.Image, _: Image.Image) -> Image.Image:
    return ImageOps.invert(image.convert("L").filter(ImageFilter.FIND_EDGES)).convert("RGB")


def silhouette_mask(image: Image.Image) -> Image.Image:
    """What differs from the border of the image, roughly: the object, white."""
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(3)), dtype=np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    distance = np.abs(pixels - np.median(border, axis=0)).sum(axis=2)
    return Image.fromarray((255 * (distance > np.median(distance))).astype(np.uint8))


def silhouette(image: Image.Image, _: Image.Image) -> Image.Image:
    return ImageOps.invert(silhouette_mask(image)).convert("RGB")


def texture(image: Image.Image, other: Image.Image) -> Image.Image:
    """The middle of another image, repeated, within the silhouette of this one."""
    patch = other.crop((SIDE // 4, SIDE // 4, 3 * SIDE // 4, 3 * SIDE // 4))
    filled = Image.new("RGB", (SIDE, SIDE))
    for x in range(0, SIDE, SIDE // 2):
        for y in range(0, SIDE, SIDE // 2):
            filled.paste(patch, (x, y))
    return Image.composite(filled, Image.new("RGB", (SIDE, SIDE), "white"), silhouette_mask(image))


def made_of(
    images: Labelled, folder: Path, make: Callable[[Image.Image, Image.Image], Image.Image]
) -> Labelled:
    """Write another version of every image, which keeps its label."""
    folder.mkdir()
    paths, labels = images
    opened = [ImageOps.fit(Image.open(path).convert("RGB"), (SIDE, SIDE)) for path in paths]
    written = []
    for i, (image, label) in enumerate(zip(opened, labels, strict=True)):
        other = next(j for j in range(i + 1, i + len(paths)) if labels[j % len(paths)] != label)
        file = folder / f"{i:05d}.png"
        make(image, opened[other % len(paths)]).save(file)
        written.append(str(file))
    return written, labels


def files_of(folder: Path) -> Labelled:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return [str(p) for p in files], [p.parent.name for p in files]


def chosen(images: Labelled, indices: np.ndarray) -> Labelled:
    return [images[0][i] for i in indices], [images[1][i] for i in indices]


def another_mix(images: Labelled, rng: np.random.Generator) -> Labelled:
    labels = np.array(images[1])
    often = np.isin(labels, rng.choice(np.unique(labels), 2, replace=False))
    rare = np.flatnonzero(~often)
    keep = rng.choice(rare, max(1, int(often.sum() / 9)), replace=False)
    return chosen(images, np.sort(np.r_[np.flatnonzero(often), keep]))


def count(verdicts: Verdicts, right: list[str]) -> tuple[int, int]:
    accepted = [
        v.label == label for v, label in zip(verdicts, right, strict=True) if v.decision == "accept"
    ]
    return len(accepted), accepted.count(False)


def said(verdicts: Verdicts) -> str:
    test = verdicts.run.test
    if test is None:
        return "nothing: no guarantee"
    parts = ["another kind"] * test.other_kind + ["another mix"] * test.other_mix
    return " and ".join(parts) or "valid"


def false_alarms(model: TrustVLM, test: Labelled, runs: int, rng: np.random.Generator) -> str:
    """Draw calibration sets and runs from the images of one split, and count what is said."""
    calibration = model.calibrate(test).calibration_
    prediction, confidence = calibration.result.prediction, calibration.result.confidence
    typicality, n_classes = calibration.typicality, len(model.classes_)
    n, kind, mix = len(prediction), 0, 0
    for _ in range(runs):
        order = rng.permutation(n)
        size = int(rng.integers(10, n // 2))
        a, b = order[: n // 2], order[n // 2 : n // 2 + size]
        reference = ShiftReference(
            {"confidence": confidence[a], "typicality": typicality[a]},
            prediction[a],
            n_classes,
            mix=np.bincount(prediction[a], minlength=n_classes),
        )
        streams = {"confidence": confidence[b], "typicality": typicality[b]}
        outcome = reference.test(streams, prediction[b])
        kind += outcome.other_kind
        mix += outcome.other_mix
    return f"{kind} called another kind, {mix} another mix, of {runs:,} runs"


def rows_of(root: Path, risk: float, shots: int, runs: int, work: Path) -> None:
    rng = np.random.default_rng(0)
    model = TrustVLM(
        "offline", "offline", classes=root / "classes.txt", score="auto_star",
        store=EmbeddingStore.memory(),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        model.fit(root / "train", shots_per_class=shots)
    test = files_of(root / "test")
    order = rng.permutation(len(test[0]))
    half = len(order) // 2
    same = chosen(test, np.sort(order[half:]))
    model.calibrate(chosen(test, order[:half]), risk=risk)
    cases = {
        "the same kind": chosen(same, rng.permutation(len(same[0]))),
        "the same, sorted by class": chosen(same, np.argsort(same[1], kind="stable")),
        "another mix of classes": another_mix(same, rng),
    }
    for name, make in (("edges", edges), ("silhouettes", silhouette), ("texture", texture)):
        cases[name] = made_of(same, work / name, make)
    for folder in sorted(root.glob("test_*")):
        cases[folder.name.removeprefix("test_")] = files_of(folder)
    label_of = dict(zip(model.classes_.folders, model.classes_.labels, strict=True))
    for name, (paths, folders) in cases.items():
        right = [label_of[folder] for folder in folders]
        before = model.predict(paths, when_invalid="keep")
        after = model.predict(paths)
        accepted, wrong = count(before, right)
        share = f"{wrong / accepted:.0%}" if accepted else "-"
        print(
            f"| {root.name} | {name} | {len(paths)} | {accepted} | {share} | {said(before)} | "
            f"{count(after, right)[0]} |",
            flush=True,
        )
    print(f"\n{root.name}: {false_alarms(model, test, runs, rng)}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--risk", type=float, default=0.1)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    print("| set | run | images | accepted | wrong | what is said | accepted after |")
    print("|---|---|--:|--:|--:|---|--:|")
    for name in SETS:
        with tempfile.TemporaryDirectory() as work:
            rows_of(options.data / name, options.risk, options.shots, options.runs, Path(work))


if __name__ == "__main__":
    main()
