"""Add, rename, merge and remove classes of a fitted model, and what becomes of its calibration.

| change | shots | text | calibration |
|---|---|---|---|
| rename, keeping the prompt | the same | the same | kept: every confidence is the same |
| rename | the same | that of the new name | renewed on the same images |
| merge | those of all of them | that of the new name | renewed, with the new labels |
| remove | without those of the class | without it | renewed on the images of the others |
| add | and those of the new class | and that of the new class | dropped: no image shows the class |

Renewed means calibrated again for the same goal, by what the model holds of its calibration images;
it counts as a further look at their labels. Where it holds nothing of them, the calibration is
dropped, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import ClassList, Columns, Source, open_images
from trustvlm.images.classes import normal_form
from trustvlm.pipeline.calibrate import (
    calibrate_again,
    calibrate_command,
    renewed_statement,
    repeatable,
)
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.pipeline.fit import Shots, describe_only_class, fit_again
from trustvlm.pipeline.records import ListedImages, encode_images, exclude_leaked
from trustvlm.pipeline.state import FittedModel, ModelState
from trustvlm.risk_control.goals import goal_of
from trustvlm.text import counted, did_you_mean, join_names


@dataclass(frozen=True)
class ClassChange:
    """What became of a model whose classes were changed.

    Attributes
    ----------
    done
        The change in words.
    calibration
        `none`, `kept`, `renewed`, or `dropped`.
    calibration_statement
        What is guaranteed now, or why nothing is, and what to do; "" where there was nothing.
    failures
        What is wrong with examples that cannot be read.
    """

    done: str
    calibration: str
    calibration_statement: str
    failures: tuple[str, ...] = ()


def add_class(
    model: FittedModel,
    name: str,
    shots: Source,
    *,
    text: str | None = None,
    **columns: Unpack[Columns],
) -> tuple[ModelState, ClassChange]:
    """Add a class after the others, with its example images, as `TrustVLM.add_class` says.

    Raises
    ------
    InputError
        As there.
    """
    state, name = model.state, name.strip()
    _check_free(state, name)
    classes = ClassList((*state.classes.names, name), (*state.classes.folders, name))
    images = list(open_images(shots, limits=model.embedder.limits, **columns))
    listed = ListedImages(images, np.full(len(images), len(classes) - 1))
    encoded = encode_images(listed, model.embedder)
    used = state.learned_from(calibrated_on=False)
    purpose = "an image has one class. Take those out, or name other examples"
    readable, _ = exclude_leaked(encoded.readable(), used, purpose=purpose)
    readable = readable.select(readable.is_first)
    failures = tuple(str(error) for error in encoded.errors if error is not None)
    if not len(readable):
        raise InputError(f"No example of {name!r} can be read: {' '.join(failures[:1])}")
    new = Shots.of(readable)
    # The paths of the other shots are relative to a folder of their own.
    files = [getattr(image, "file", None) for image in readable.refs]
    contents = tuple(
        {**image, "path": str(file.absolute())} if file else image
        for image, file in zip(new.images, files, strict=True)
    )
    texts = (*state.texts, (text or "").strip() or name)
    updated = _with_classes(
        model, classes, texts, Shots.of_model(state).and_also(replace(new, images=contents))
    )
    done = f"added {name!r} with {counted(len(new), 'example')}"
    earlier = state.calibration
    if earlier is None or not earlier.rules:
        return _recalibrated(model, updated, done, failures=failures)
    why = f"no calibration image shows {name!r}, so that nothing would hold for images of it"
    return updated, _dropped(done, earlier, why, failures)


def rename_class(
    model: FittedModel, old: str, new: str, *, keep_prompt: bool = False
) -> tuple[ModelState, ClassChange]:
    """Call a class otherwise, as `TrustVLM.rename_class` says.

    Its folder keeps its name, so that labelled images are read as before.

    Raises
    ------
    InputError
        As there.
    """
    state, new = model.state, new.strip()
    at = _index(state, old)
    _check_free(state, new, besides=(at,))
    if new == state.classes.names[at] and (keep_prompt or state.texts[at] == new):
        raise InputError(f"Expected another name for the class {new!r}, but it is called so.")
    names = [new if i == at else name for i, name in enumerate(state.classes.names)]
    texts = list(state.texts)
    if not keep_prompt:
        texts[at] = new
    classes = ClassList(tuple(names), state.classes.folders)
    done = f"renamed {state.classes.labels[at]!r} to {new!r}"
    if tuple(texts) == state.texts or not state.has_vlm:
        # Nothing that a confidence is made of has changed.
        said = () if tuple(texts) == classes.names else tuple(texts)
        renamed = replace(state, classes=classes, class_texts=said)
        of = state.calibration
        kept = "none" if of is None else "kept"
        return renamed, ClassChange(done, kept, "" if of is None else of.statement)
    updated = _with_classes(model, classes, texts, Shots.of_model(state))
    return _recalibrated(model, updated, done)


def merge_classes(
    model: FittedModel, names: Sequence[str], into: str, *, text: str | None = None
) -> tuple[ModelState, ClassChange]:
    """Make some classes one, in the place of the first, as `TrustVLM.merge_classes` says.

    Raises
    ------
    InputError
        As there.
    """
    state, into = model.state, into.strip()
    merged = sorted({_index(state, name) for name in names})
    if len(merged) < 2:
        raise InputError(f"Expected two classes or more to merge, but got {join_names(names)}.")
    _check_free(state, into, besides=merged)
    first, others = merged[0], merged[1:]
    kept = [i for i in range(len(state.classes)) if i not in others]
    names_now = [into if i == first else state.classes.names[i] for i in kept]
    folders = [into if i == first else state.classes.folders[i] for i in kept]
    texts = [(text or "").strip() or into if i == first else state.texts[i] for i in kept]
    position = np.array(
        [kept.index(first if i in others else i) for i in range(len(state.classes))]
    )
    shots = Shots.of_model(state)
    shots = replace(shots, labels=position[shots.labels])
    classes = ClassList(tuple(names_now), tuple(folders))
    updated = _with_classes(model, classes, texts, shots)
    done = f"merged {join_names([repr(state.classes.labels[i]) for i in merged])} into {into!r}"
    return _recalibrated(model, updated, done, position)


def remove_classes(model: FittedModel, names: Sequence[str]) -> tuple[ModelState, ClassChange]:
    """Remove classes and their shots, as `TrustVLM.remove_classes` says.

    Raises
    ------
    InputError
        As there.
    """
    state = model.state
    removed = {_index(state, name) for name in names}
    if not removed:
        raise InputError("Expected a class to remove, but got none.")
    kept = [i for i in range(len(state.classes)) if i not in removed]
    if not kept:
        raise InputError("Expected some class to be left, but all of them would be removed.")
    position = np.full(len(state.classes), -1)
    position[kept] = np.arange(len(kept))
    shots = Shots.of_model(state)
    shots = replace(shots, labels=position[shots.labels])
    shots = shots.select(shots.labels >= 0)
    classes = ClassList(
        tuple(state.classes.names[i] for i in kept), tuple(state.classes.folders[i] for i in kept)
    )
    updated = _with_classes(model, classes, [state.texts[i] for i in kept], shots)
    done = f"removed {join_names([repr(state.classes.labels[i]) for i in sorted(removed)])}"
    updated, change = _recalibrated(model, updated, done, position)
    if change.calibration == "renewed" and updated.calibration and updated.calibration.images:
        statement = (
            f"{change.calibration_statement} It is for images of the other classes only: one of a "
            "class that was removed gets the label of another."
        )
        change = replace(change, calibration_statement=statement)
    return updated, change


def _index(state: ModelState, name: str) -> int:
    """Return which class is meant, by its label, name or folder."""
    classes = state.classes
    for names in (classes.labels, classes.folders):
        forms = [normal_form(label) for label in names]
        if forms.count(normal_form(name)) == 1:
            return forms.index(normal_form(name))
    some = ", ".join(map(repr, classes.labels[:20]))
    hint = did_you_mean(name, classes.labels) or (
        f"its classes are {some}{', ...' if len(classes) > 20 else ''}."
    )
    raise InputError(f"Expected a class of the model, but got {name!r}: {hint}")


def _check_free(state: ModelState, name: str, besides: Sequence[int] = ()) -> None:
    """Raise `InputError` if a class, but for those at some positions, is called so already."""
    if not name:
        raise InputError("Expected the name of a class not to be empty.")
    classes, form = state.classes, normal_form(name)
    others = () if state.other_classes is None else state.other_classes.names
    own = [c for i in range(len(classes)) if i not in besides for c in _names(classes, i)]
    if form in {normal_form(other) for other in (*own, *others)}:
        raise InputError(f"Expected a name that no class has yet, but {name!r} is one.")


def _names(classes: ClassList, index: int) -> tuple[str, ...]:
    return classes.labels[index], classes.names[index], classes.folders[index]


def _with_classes(
    model: FittedModel, classes: ClassList, texts: Sequence[str], shots: Shots
) -> ModelState:
    """Return the model with these classes, their texts and shots; without a calibration."""
    state, embedder = model.state, model.embedder
    said = tuple(texts)
    embeddings = np.empty((len(classes), 0), dtype=np.float32)
    if state.has_vlm:
        embeddings = embedder.embed_classes(said, state.prompts)
    updated = fit_again(
        state,
        shots,
        embedder.encoders.device,
        classes=classes,
        class_texts=() if said == classes.names else said,
        text_embeddings=embeddings,
    )
    if len(classes) == 1:
        warnings.warn(describe_only_class(updated), TrustVLMWarning, stacklevel=4)
    return updated


def _recalibrated(
    model: FittedModel,
    updated: ModelState,
    done: str,
    position: NDArray[np.int64] | None = None,
    failures: tuple[str, ...] = (),
) -> tuple[ModelState, ClassChange]:
    """Renew the calibration where it can be; `position` says which class each one has become."""
    earlier = model.state.calibration
    if earlier is None:
        return updated, ClassChange(done, "none", "", failures)
    if not earlier.rules:
        if not (updated.bank.counts_ > 1).any():
            return updated, _dropped(done, earlier, "no class has two examples now", failures)
        renewed = calibrate_again(updated, earlier)
    else:
        why = ""
        if not repeatable(earlier):
            why = "confidences are others now, and the model does not hold its calibration images"
        elif position is not None and goal_of(earlier.rules).class_risks:
            why = "classes have risks of their own"
        labels = None if position is None else position[earlier.labels]
        if labels is not None and not (labels >= 0).any():
            why = "no calibration image is left"
        if why:
            return updated, _dropped(done, earlier, why, failures)
        renewed = calibrate_again(updated, earlier, labels)
    statement = renewed_statement(renewed.calibration)
    return renewed, ClassChange(done, "renewed", statement, failures)


def _dropped(done: str, earlier: Calibration, why: str, failures: tuple[str, ...]) -> ClassChange:
    statement = f"{why}. To renew it: {calibrate_command(earlier)}"
    return ClassChange(done, "dropped", statement, failures)
