"""Ask a multimodal language model for the label of each image, and write path, label, probability.

Any endpoint of the OpenAI kind will do (`/chat/completions` with images and log-probabilities).
The answer is one letter, so that the probability of its token is that of the label:

    export LLM_URL=https://... LLM_KEY=... LLM_MODEL=...
    python label_with_a_language_model.py photos/ cat,dog,bird -o labels.csv

More than 26 classes do not fit into single letters: ask in two steps then.
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
import math
import mimetypes
import os
import string
import sys
import urllib.error
import urllib.request
from pathlib import Path

from trustvlm.images import find_images


def ask(image: bytes, kind: str, classes: list[str]) -> tuple[str, float | None]:
    """Return the label of an image and its probability, None where the endpoint gives none."""
    letters = dict(zip(string.ascii_uppercase, classes, strict=False))
    choices = "\n".join(f"{letter}: {name}" for letter, name in letters.items())
    url = f"data:{kind};base64,{base64.b64encode(image).decode()}"
    question = f"What does the image show? Answer with one letter.\n{choices}"
    content = [
        {"type": "text", "text": question},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    body = {
        "model": os.environ["LLM_MODEL"],
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
    }
    request = urllib.request.Request(
        os.environ["LLM_URL"].rstrip("/") + "/chat/completions",
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('LLM_KEY', '')}",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        choice = json.load(response)["choices"][0]
    letter = choice["message"]["content"].strip()[:1]
    tokens = (choice.get("logprobs") or {}).get("content") or [{}]
    # What other tokens got, such as a blank before the letter, says nothing about the classes.
    shares: dict[str, float] = {}
    for token in tokens[0].get("top_logprobs", []):
        if (name := token["token"].strip()) in letters:
            shares[name] = shares.get(name, 0.0) + math.exp(token["logprob"])
    probability = shares[letter] / sum(shares.values()) if letter in shares else None
    return letters.get(letter, choice["message"]["content"].strip()), probability


def main() -> int:
    """Label all images of a folder; return 1 if some got no answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos")
    parser.add_argument("classes", help="separated by commas")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    classes = [name.strip() for name in arguments.classes.split(",")]
    if len(classes) > len(string.ascii_uppercase):
        parser.error(f"expected at most 26 classes, but got {len(classes)}")
    failed = 0
    with arguments.output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "label_confidence"])
        for image in find_images(arguments.photos):
            path = Path(arguments.photos, image.path).resolve()
            kind = mimetypes.guess_type(path.name)[0] or "image/jpeg"
            try:
                label, probability = ask(image.read(), kind, classes)
            except (OSError, ValueError, KeyError, urllib.error.URLError) as error:
                print(f"{path}: {error}", file=sys.stderr)
                failed += 1
                continue
            shown = "" if probability is None else f"{probability:.6g}"
            writer.writerow([str(path), label, shown])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
