"""Ask a multimodal language model for the label of each image, and write path, label, probability.

Any endpoint of the OpenAI kind will do (`/chat/completions` with images and log-probabilities).
The answer is one letter, so that the probability of its token is that of the label. Another answer
becomes the label as it is, without a probability, and goes to review:

    export LLM_URL=https://... LLM_KEY=... LLM_MODEL=...
    python label_with_a_language_model.py photos/ cat,dog,bird -o labels.csv

More than 26 classes do not fit into single letters: ask in two steps then.
"""

from __future__ import annotations

import argparse
import base64
import csv
import http.client
import json
import math
import mimetypes
import os
import re
import string
import sys
import urllib.error
import urllib.request
from pathlib import Path

from trustvlm.exceptions import InputError
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
    # A refusal has no content.
    answer = (choice["message"].get("content") or "").strip()
    if not answer:
        raise ValueError("the answer is empty")
    # A letter alone: that of "Cat" is none of a class.
    match = re.fullmatch(r"([A-Za-z])[.:)]?", answer)
    letter = match[1].upper() if match else ""
    if letter not in letters:
        names = {name.casefold(): name for name in classes}
        return names.get(answer.casefold(), answer), None
    tokens = (choice.get("logprobs") or {}).get("content") or [{}]
    # What other tokens got, such as a blank before the letter, says nothing about the classes.
    shares: dict[str, float] = {}
    for token in tokens[0].get("top_logprobs") or []:
        if (name := token["token"].strip().upper()) in letters:
            shares[name] = shares.get(name, 0.0) + math.exp(token["logprob"])
    return letters[letter], shares[letter] / sum(shares.values()) if letter in shares else None


_FAILURES = (OSError, ValueError, LookupError, TypeError, http.client.HTTPException)


def explained(error: Exception) -> str:
    """Say what went wrong, with what the endpoint says of it."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{error}: {error.read(500).decode(errors='replace')}"
    if isinstance(error, LookupError | TypeError):
        return f"the answer is not of the form expected ({error!r})"
    return str(error)


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
    if "" in classes or len({name.casefold() for name in classes}) < len(classes):
        parser.error(f"expected distinct names of classes, but got {arguments.classes!r}")
    if missing := [name for name in ("LLM_URL", "LLM_MODEL") if not os.environ.get(name)]:
        parser.error(
            f"expected {' and '.join(missing)} in the environment: see the top of this file"
        )
    if arguments.output.exists():
        parser.error(f"{arguments.output} is there, and its labels may have cost something")
    try:
        images = list(find_images(arguments.photos))
    except InputError as error:
        parser.error(str(error))
    failed = 0
    with arguments.output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "label_confidence"])
        for image in images:
            # Those in archives and at URLs are no files.
            path = image.path if image.file is None else str(image.file.resolve())
            kind = mimetypes.guess_type(path)[0] or "image/jpeg"
            try:
                label, probability = ask(image.read(), kind, classes)
            except (
                OSError,
                ValueError,
                LookupError,
                TypeError,
                http.client.HTTPException,
            ) as error:
                print(f"{path}: {explained(error)}", file=sys.stderr)
                failed += 1
                continue
            shown = "" if probability is None else f"{probability:.6g}"
            writer.writerow([path, label, shown])
            stream.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
