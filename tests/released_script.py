"""What the released TrustVLM script computes, anew and independently: torch, PIL and loops.

Written from the description of the method; nothing of the script is copied, and nothing of this
project is imported. Text and images go through the towers one at a time, in float32.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Judged(NamedTuple):
    """Predictions and confidences of n images."""

    prediction: list[int]
    confidence: list[float]


def draw(labels: Sequence[int], n_classes: int, shots: int) -> list[int]:
    """Draw the shots: the generator is seeded with 0 for every class anew."""
    chosen: list[int] = []
    for c in range(n_classes):
        of_class = [i for i, label in enumerate(labels) if label == c]
        random.seed(0)
        chosen += random.sample(of_class, shots)
    return chosen


def tensor_of(path: Path, size: int):
    """Resize the shorter side, bicubic, crop the centre, and normalise as CLIP does."""
    import torch

    image = Image.open(path).convert("RGB")
    width, height = image.size
    short = min(width, height)
    wanted = (int(size * width / short), int(size * height / short))
    image = image.resize(wanted, Image.Resampling.BICUBIC)
    top, left = round((image.height - size) / 2), round((image.width - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return ((pixels - mean) / std)[None]


class Script:
    """CLIP and DINOv2 in directories of the hub's format; one template."""

    def __init__(self, clip: Path, dinov2: Path, size: int, template: str) -> None:
        from transformers import AutoModel, AutoTokenizer, CLIPModel

        self.clip, self.dinov2 = CLIPModel.from_pretrained(clip), AutoModel.from_pretrained(dinov2)
        self.tokenizer = AutoTokenizer.from_pretrained(clip)
        self.size, self.template = size, template
        self.clip.eval()
        self.dinov2.eval()

    def text(self, name: str):
        prompt = self.template.replace("{}", name.replace("_", " "))
        tokens = self.tokenizer([prompt], padding="max_length", max_length=77, return_tensors="pt")
        vector = self.clip.get_text_features(**tokens).pooler_output[0]
        return vector / vector.norm()

    def features(self, path: Path):
        """The mean over all tokens, the class token included, of the tensor that CLIP sees."""
        return self.dinov2(tensor_of(path, self.size)).last_hidden_state.mean(dim=1)[0]

    def judge(
        self,
        shots: Sequence[tuple[Path, int]],
        images: Sequence[Path],
        names: Sequence[str],
        *,
        weight: float,
        temperature: float | None,
    ) -> Judged:
        """Judge images: with a temperature as TrustVLM*, without one as TrustVLM."""
        import torch

        with torch.inference_mode():
            texts = torch.stack([self.text(name) for name in names])
            prototypes = []
            for c in range(len(names)):
                mean = torch.stack([self.features(p) for p, label in shots if label == c]).mean(0)
                prototypes.append(mean / mean.norm())
            bank = torch.stack(prototypes)
            scale = self.clip.logit_scale.exp()
            prediction, confidence = [], []
            for path in images:
                vector = self.clip.get_image_features(
                    pixel_values=tensor_of(path, self.size)
                ).pooler_output[0]
                probabilities = (scale * texts @ (vector / vector.norm())).softmax(0)
                seen = self.features(path)
                cosines = bank @ (seen / seen.norm())
                if temperature is not None:
                    probabilities = probabilities + weight * (cosines / temperature).softmax(0)
                label = int(probabilities.argmax())
                prediction.append(label)
                confidence.append(float(probabilities[label] + weight * cosines[label]))
        return Judged(prediction, confidence)
