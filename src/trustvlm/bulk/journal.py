"""What is written down of a bulk job: what it is when it begins, and then which parts are done."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trustvlm._version import __version__
from trustvlm.bulk.folder import FOLDER, JobFolder
from trustvlm.bulk.parts import FinishedPart, Part
from trustvlm.exceptions import InputError
from trustvlm.images import ImageShard
from trustvlm.models.registry import plugin_of
from trustvlm.plugins import load_installed, origin
from trustvlm.scores import get
from trustvlm.serialization import first_invalid

_FORMAT, _VERSION = "trustvlm.bulk", 1


class Manifest(BaseModel):
    """The inputs, the model and the settings of a job, as `manifest.json` has them."""

    format: str
    format_version: int
    created_by: str
    inputs: list[str]
    model: dict[str, str]
    settings: dict[str, Any]


def identify(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return a fingerprint of each side of a model that can change a verdict.

    What was registered from outside the package counts as it is here, which need not be as it was
    when the model was saved.

    Parameters
    ----------
    manifest
        Of the `.trust` directory.
    """
    models = manifest["models"]
    sides = {
        "VLM": models["vlm"]["fingerprint"],
        "vision encoder": models["vision"]["fingerprint"],
        "classes": [manifest["classes"], manifest["folders"]],
        "prompts": manifest["prompts"],
        "score": [manifest["score"]["name"], manifest["score"]["parameters"]],
        "protocol": [manifest["protocol"], manifest["precision"]],
        "calibration": [manifest["calibration"], manifest["decision_rule"]],
        "shots": [shot["sha256"] for shot in manifest["shots"]["images"]],
        "prototypes": manifest["arrays"]["sha256"],
    }
    if plugins := _plugins(manifest):
        sides["plugins"] = plugins
    return {name: _hash(value) for name, value in sides.items()}


def _plugins(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Say which files from outside the package run the encoders and the score of a model."""
    encoders = [entry["spec"] for entry in manifest["models"].values() if entry.get("plugin")]
    if encoders:
        load_installed()
    plugins = [plugin_of(spec) for spec in encoders]
    if manifest["score"].get("plugin"):
        plugins.append(origin(get(manifest["score"]["name"]).function))
    return plugins


def check_folder(output: JobFolder) -> None:
    """Refuse a folder that holds anything but a job, before anything is written there.

    Raises
    ------
    InputError
        That says what it holds.
    """
    others = [name for name in output.sizes() if name != FOLDER]
    with suppress(FileNotFoundError):
        if others:
            output.open(f"{FOLDER}/manifest.json").close()
            others = []
    if others:
        raise InputError(
            f"Expected {str(output)!r} to be new, empty, or a folder of an earlier run, but "
            f"it holds {others[0]!r}. Choose another folder."
        )


def agree_on(
    output: JobFolder, inputs: list[str], model: Mapping[str, str], settings: Mapping[str, Any]
) -> None:
    """Write the manifest of a new job, or check that the one there is of the same job.

    Raises
    ------
    InputError
        If the folder holds something else, or a job that differs; the message says in what.
    """
    job = Manifest(
        format=_FORMAT,
        format_version=_VERSION,
        created_by=f"trustvlm {__version__}",
        inputs=inputs,
        model=dict(model),
        settings=dict(settings),
    )
    name = f"{FOLDER}/manifest.json"
    file = f"{output}/{name}"
    try:
        with output.open(name) as stream:
            content = stream.read()
    except FileNotFoundError:
        check_folder(output)
        text = json.dumps(job.model_dump(), indent=2, ensure_ascii=False) + "\n"
        output.write(name, text.encode("utf-8", "backslashreplace"), private=True)
        return
    try:
        stored = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise InputError(
            f"{file} is damaged ({': '.join(first_invalid(error))}). Choose another folder."
        ) from error
    if (stored.format, stored.format_version) != (_FORMAT, _VERSION):
        raise InputError(f"{file} was made by another version of trustvlm. Choose another folder.")
    if stored.inputs != inputs:
        raise InputError(
            f"{str(output)!r} holds verdicts on other inputs: {', '.join(stored.inputs)}, and "
            f"not {', '.join(inputs)}. Name the same, or choose another folder."
        )
    for part, before, now in (
        ("model", stored.model, job.model),
        ("setting", stored.settings, job.settings),
    ):
        differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if differing:
            detail = "; ".join(
                f"{name}: {_short(before.get(name))} there, {_short(now.get(name))} now"
                for name in differing
            )
            raise InputError(
                f"{str(output)!r} was begun with another {part} ({detail}). "
                "Continue with the same, or choose another folder."
            )


def _hash(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)


# The journal: which parts of a job are done, a line for each, written after its file.


class Entry(BaseModel):
    """One finished part, as a line of `done.jsonl` has it.

    Attributes
    ----------
    number, start
        As in `Part`.
    name, stamp
        Of the shard.
    n_images, last, decisions, errors
        As in `FinishedPart`.
    file, n_bytes
        Where the verdicts are; "" and 0 without images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    start: int
    name: str
    stamp: str
    n_images: int
    last: bool
    decisions: dict[str, int]
    errors: dict[str, int]
    file: str
    n_bytes: int


class Journal:
    """Reads and continues the list of finished parts; the parent process alone writes it.

    A part is done when its line is there and its file has the size that the line states. The file
    is there whole before the line is written, so a killed run at worst computes one part again, and
    replaces its file by the same bytes.

    Parameters
    ----------
    output
        The folder of the job.
    retry_errors
        Count parts with errors as not done; their files stay until others replace them.
    """

    def __init__(self, output: JobFolder, *, retry_errors: bool = False) -> None:
        self._output = output
        self._retry_errors = retry_errors
        self._done: defaultdict[int, dict[int, Entry]] = defaultdict(dict)
        self.n_images = 0
        self.decisions: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._read()

    def done(self, number: int) -> dict[int, bool]:
        """Return, by the start of each finished part of a shard, whether the shard ends there."""
        return {start: entry.last for start, entry in self._done[number].items()}

    def add(self, part: Part, finished: FinishedPart) -> Entry:
        """Write a part's verdicts, and then that they are written."""
        entry = Entry(
            number=part.number,
            start=part.start,
            name=part.shard.name,
            stamp=part.shard.stamp(),
            n_images=finished.n_images,
            last=finished.last,
            decisions=finished.decisions,
            errors=finished.errors,
            file=part.file_name if finished.content else "",
            n_bytes=len(finished.content),
        )
        self._write(entry, finished.content)
        self._count(entry)
        return entry

    @property
    def files(self) -> list[Entry]:
        """The finished parts that have a file, in input order."""
        entries = (
            entry for _, parts in sorted(self._done.items()) for _, entry in sorted(parts.items())
        )
        return [entry for entry in entries if entry.file]

    def replace(self, entry: Entry, content: bytes, decisions: Mapping[str, int]) -> None:
        """Give a finished part another file, of other decisions; of its lines the last one holds.

        Killed in between, the part is computed again.
        """
        self.decisions.subtract(entry.decisions)
        self.decisions.update(decisions)
        changed = {"decisions": dict(decisions), "n_bytes": len(content)}
        self._done[entry.number][entry.start] = entry.model_copy(update=changed)
        self._write(self._done[entry.number][entry.start], content)

    def _write(self, entry: Entry, content: bytes) -> None:
        part = f"part-{entry.number:06d}-{entry.start:09d}"
        line = json.dumps(entry.model_dump(), ensure_ascii=False)
        self._output.record(entry.file, content, part, line)

    def check(self, number: int, shard: ImageShard) -> None:
        """Raise `InputError` if parts of a shard are done that was another one."""
        entry = next(iter(self._done[number].values()), None)
        if entry is not None and (entry.name, entry.stamp) != (shard.name, shard.stamp()):
            raise InputError(
                f"The inputs have changed since {str(self._output)!r} was begun: piece "
                f"{number + 1} was {entry.name!r} and is now {shard.name!r}, with other images or "
                "another date. Restore them, or choose another folder."
            )

    @property
    def n_shards(self) -> int:
        """How many shards have finished parts; they may have others that are still to do."""
        return 1 + max((number for number, parts in self._done.items() if parts), default=-1)

    def _read(self) -> None:
        done: dict[tuple[int, int], Entry] = {}
        lines = list(self._output.records())
        sizes = self._output.sizes() if lines else {}
        for where, line in lines:
            try:
                entry = Entry.model_validate_json(line)
            except ValidationError as error:
                fault = ": ".join(first_invalid(error))
                raise InputError(
                    f"{where} is damaged ({fault}). Remove it: what it was about is then done "
                    "again."
                ) from error
            if not entry.file or sizes.get(entry.file) == entry.n_bytes:
                # Of several lines of a part that fit its file, the last one holds.
                done[entry.number, entry.start] = entry
        for entry in done.values():
            if not (self._retry_errors and entry.errors):
                self._count(entry)

    def _count(self, entry: Entry) -> None:
        self._done[entry.number][entry.start] = entry
        self.n_images += entry.n_images
        self.decisions.update(entry.decisions)
        self.errors.update(entry.errors)
