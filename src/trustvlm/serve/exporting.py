"""From answers to files: a table for people, and labelled images for a better model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trustvlm.exceptions import InputError
from trustvlm.files import write_bytes, write_text
from trustvlm.images.formats import recognise
from trustvlm.serve.feedback import FeedbackStore

__all__ = ["ANSWER_COLUMNS", "answers_csv", "random_sample", "write_labelled"]

ANSWER_COLUMNS = (
    "id",
    "image",
    "model",
    "action",
    "label",
    "folder",
    "predicted",
    "confidence",
    "created_at",
)


def answers_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return answers as CSV.

    Examples
    --------
    >>> print(answers_csv([]).strip())
    id,image,model,action,label,folder,predicted,confidence,created_at
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ANSWER_COLUMNS)
    for row in rows:
        writer.writerow(["" if row[c] is None else row[c] for c in ANSWER_COLUMNS])
    return text.getvalue()


def random_sample(store: FeedbackStore, model: str) -> list[dict[str, Any]]:
    """Return the answers that are a random sample of the kept images.

    Images in the order of their SHA-256 are in random order: this takes them up to the first one
    that has no answer, or was skipped. Doubtful images alone would be no sample, and whatever is
    calibrated on them would promise nothing.
    """
    known = {row["image"]: row for row in store.answers(model)}
    sample = []
    for digest in store.digests(model):
        row = known.get(digest)
        if row is None or row["action"] == "skip":
            break
        sample.append(row)
    return sample


def write_labelled(
    store: FeedbackStore,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    shots: Iterable[tuple[Path, str]] = (),
) -> int:
    """Write answered images and `labels.csv`, which `fit` and `calibrate` read; return how many.

    Parameters
    ----------
    store
        Where the images are kept.
    rows
        Answers; those that name no class, or whose image was not kept, are passed over.
    folder
        Where to write; it must not hold a `labels.csv` yet.
    shots
        Further labelled files, which the table lists first, with their full paths.

    Raises
    ------
    InputError
        If there is a `labels.csv` already, or nothing to write.
    """
    table = folder / "labels.csv"
    if table.exists():
        raise InputError(f"{table} exists already: name another folder, or move it away.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label"])
    writer.writerows((str(path.absolute()), label) for path, label in shots)
    written = 0
    for row in rows:
        kept = store.kept(row["image"], row["model"])
        if row["action"] == "skip" or kept is None:
            continue
        known = recognise(kept.content)
        suffix = known.name.lower() if known else "image"
        # The digest names the file: what a client called it is never a path.
        name = f"images/{row['image']}.{suffix}"
        write_bytes(folder / name, kept.content)
        writer.writerow([name, row["folder"]])
        written += 1
    if not written:
        raise InputError(
            "There is no answered image to write: only images that were sent with keep=true, as "
            "the review page does, are kept."
        )
    write_text(table, text.getvalue())
    return written
