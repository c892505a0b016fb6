"""The experiment grid as a TOML file: read, checked and expanded before any forward pass."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from trustvlm import datasets, metrics
from trustvlm.benchmark.dataset import PRESETS
from trustvlm.exceptions import InputError
from trustvlm.files import local_path
from trustvlm.images import DEFAULT_LIMITS, Columns
from trustvlm.models import read_prompts
from trustvlm.models.base import NO_VLM
from trustvlm.pipeline.records import PROTOCOLS
from trustvlm.pipeline.select import SELECTABLE, free_settings
from trustvlm.scores import canonical_name, check_parameters, get
from trustvlm.serialization import read_toml
from trustvlm.text import did_you_mean, join_names

# What a study may say: each class is a table of the file.


class _Table(BaseModel):
    """A table of the file: it cannot be changed, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, table: Any) -> Any:
        fields = [field.alias or name for name, field in cls.model_fields.items()]
        for key in table if isinstance(table, dict) else ():
            if key not in fields:
                hint = did_you_mean(key, fields)
                raise InputError(
                    f"the table does not know `{key}`; {hint + ' It' if hint else 'it'} takes "
                    f"{', '.join(sorted(fields))}."
                )
        return table


def _among(*values: str) -> AfterValidator:
    def check(chosen: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
        for value in (chosen,) if isinstance(chosen, str) else chosen:
            if value not in values:
                raise InputError(
                    f"Expected `{info.field_name}` among {', '.join(values)}, but got {value!r}."
                )
        return chosen

    return AfterValidator(check)


def _relative_to_file(path: Path, info: ValidationInfo) -> Path:
    return Path(info.context["folder"]) / path if info.context else path


def _existing(path: Path, info: ValidationInfo) -> Path:
    path = _relative_to_file(path, info)
    if not path.exists():
        raise InputError(f"the study names {path}, which does not exist.")
    return path


def _by_split(tests: Any) -> Any:
    """Name each test split by its folder or file, unless a table names them."""
    paths = [tests] if isinstance(tests, str) else tests
    if isinstance(paths, list) and all(isinstance(path, str) for path in paths):
        return {Path(path).stem: path for path in paths}
    return tests


_Path: TypeAlias = Annotated[Path, AfterValidator(_relative_to_file)]
_ExistingPath: TypeAlias = Annotated[Path, AfterValidator(_existing)]
_Count: TypeAlias = Annotated[StrictInt, Field(ge=1)]


class FolderSet(_Table):
    """A data set of folders: where its shots come from, and what is tested.

    Attributes
    ----------
    train
        Folder of class folders, or CSV of path and label, that shots are drawn from.
    tests
        The same, to test on, by the name of the split; `test` in the file.
    validation
        The same, to select settings on; `val` in the file; None if there is none.
    classes
        File of class names; None takes the folder names.
    path_column, label_column, image_column
        What the columns of tables are called, as `images.Columns` has them.
    name
        For tables; by default the name of the folder that holds `train`.
    """

    train: _ExistingPath
    tests: Annotated[Mapping[str, _ExistingPath], BeforeValidator(_by_split)] = Field(
        alias="test", min_length=1
    )
    validation: _ExistingPath | None = Field(None, alias="val")
    classes: _ExistingPath | None = None
    path_column: StrictStr = "path"
    label_column: StrictStr = "label"
    image_column: StrictStr | None = None
    name: StrictStr = Field(
        # Older pydantic asks for the name of a set whose folder is wrong, too.
        default_factory=lambda table: (
            table["train"].parent.name or table["train"].name if "train" in table else ""
        )
    )

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the test splits."""
        return tuple(self.tests)

    @property
    def columns(self) -> Columns:
        """The names of the columns."""
        return {
            "path_column": self.path_column,
            "label_column": self.label_column,
            "image_column": self.image_column,
        }


_AS_PUBLISHED = "as-published"
_Rules: TypeAlias = Annotated[StrictStr, _among(*datasets.IMAGENET_RULES)]
_spec = datasets.get


class CatalogueSet(_Table):
    """A set of the catalogue (`trustvlm datasets`), by its name.

    Attributes
    ----------
    name
        As in the catalogue.
    root, splits_dir
        The folder that holds all data sets, and perhaps another one with their split files.
    imagenet_rules
        Of ImageNet and its relatives: `as-published` or `released`; by default the study's.
    names, folder_order, shots_from
        Single fields of `datasets.ImageNetRules`, where the set's shall differ.
    """

    name: Annotated[StrictStr, AfterValidator(lambda name: datasets.get(name).name)]
    root: _Path
    splits_dir: _Path | None = None
    imagenet_rules: _Rules = _AS_PUBLISHED
    names: Annotated[StrictStr, _among("own", "imagenet")] | None = None
    folder_order: Annotated[StrictStr, _among("number", "text")] | None = None
    shots_from: Annotated[StrictStr, _among("train", "test")] | None = None

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        applicable = datasets.applicable_rules(datasets.get(self.name))
        for key in self._own_rules:
            if key not in applicable:
                where = [n for n in datasets.names() if key in datasets.applicable_rules(_spec(n))]
                raise InputError(
                    f"`{key}` is for {join_names(where)} alone, and means nothing for {self.name}."
                )
        return self

    @property
    def _own_rules(self) -> dict[str, Any]:
        keys = (field.name for field in fields(datasets.ImageNetRules))
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    @property
    def rules(self) -> datasets.ImageNetRules:
        """How the set is read, if it is ImageNet or one of its relatives."""
        rules = datasets.IMAGENET_RULES[self.imagenet_rules]
        return replace(rules, **self._own_rules).of(datasets.get(self.name))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the test splits."""
        return (self.rules.split,)


def _kind(table: Any) -> str:
    return "<catalogue>" if isinstance(table, dict) and "root" in table else "<folders>"


SetConfig: TypeAlias = Annotated[
    Annotated[FolderSet, Tag("<folders>")] | Annotated[CatalogueSet, Tag("<catalogue>")],
    Discriminator(_kind),
]


_Prompt: TypeAlias = Annotated[
    Annotated[StrictStr, Tag("<text>")] | Annotated[tuple[StrictStr, ...], Tag("<list>")],
    Discriminator(lambda prompt: "<list>" if isinstance(prompt, list | tuple) else "<text>"),
]


def _predicting(vlm: str) -> str:
    if vlm == NO_VLM:
        raise InputError(
            f"Expected `vlm` to name a vision-language model, whose labels a study is about, but "
            f"got {vlm!r}."
        )
    return vlm


class ModelPair(_Table):
    """A VLM, the encoder that verifies it, and what the VLM's prompts say.

    Attributes
    ----------
    vlm, vision
        As for `TrustVLM`.
    prompt
        A template; several, whose embeddings are averaged; the path of a text file with one a line;
        or the name of templates that differ from one data set to the next: of a table of `prompts`,
        or of one of `datasets.PROMPT_PRESETS`. None takes the model's own.
    """

    vlm: Annotated[StrictStr, AfterValidator(_predicting)]
    vision: StrictStr
    prompt: _Prompt | None = None

    @property
    def prompt_label(self) -> str:
        """What rows call the prompt; empty for the model's own."""
        if self.prompt is None:
            return ""
        if isinstance(self.prompt, str):
            return self.prompt if "{" in self.prompt else Path(self.prompt).name
        text = " | ".join(self.prompt)
        if len(text) <= _LONGEST_LABEL:
            return text
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        return f"{len(self.prompt)} templates ({digest})"


# Longer ensembles are called by their number of templates and a digest.
_LONGEST_LABEL = 80
_DEFAULT = "default"


def _every_score(value: Any) -> Any:
    if value == []:
        raise InputError('Expected `scores` to be "all" or a list of names, but got [].')
    return () if value == "all" else value


def _check_scores(scores: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(get(canonical_name(name)).name for name in scores))


def _check_parameters(
    parameters: Mapping[str, Mapping[str, Any]],
) -> Mapping[str, Mapping[str, Any]]:
    named = {canonical_name(name): settings for name, settings in parameters.items()}
    for name, settings in named.items():
        check_parameters(name, settings)
    return named


class BenchConfig(_Table):
    """A whole study.

    Attributes
    ----------
    name
        Title of the page.
    out
        Folder for rows, cells, tables and figures.
    datasets, models, protocols, shots, draws
        The axes of the grid.
    scores
        Names, also as papers have them; empty takes every score that the evidence allows.
    parameters
        A score's own parameters, by its name.
    prompts
        Templates by data set, under a name that a model's `prompt` can say. `default` stands for
        data sets that are not named; without it they have the model's own prompt. In the place of
        templates may stand a name of `datasets.PROMPT_PRESETS`.
    preset
        `untuned` (the scores' defaults, r=1 and T=0.01) or `paper` (for sets of the catalogue, the
        values of the released commands; how those were chosen is not documented); or `loo` or
        `validation`, which select them for every draw on the shots, or on the set's validation
        images.
    convention
        Of the metrics.
    imagenet_rules
        How ImageNet and its relatives are read: `as-published`, or as the `released` script does.
    shared_images
        What is done with test images that are also shots, by content: `drop` or `keep`.
    near_duplicates
        Whether test images that resemble a shot closely are listed.
    device, precision
        Where and how the encoders run.
    max_pixels
        Width times height of one image, at most.
    studies
        Names of further studies on the same images (`trustvlm bench study`), None for all of them;
        each is shown where the data sets and the scores allow it.
    """

    name: StrictStr
    out: Annotated[_Path, BeforeValidator(local_path)]
    scores: Annotated[
        tuple[StrictStr, ...], BeforeValidator(_every_score), AfterValidator(_check_scores)
    ] = ()
    parameters: Annotated[Mapping[str, Mapping[str, Any]], AfterValidator(_check_parameters)] = (
        Field(default_factory=dict)
    )
    shots: Annotated[
        tuple[_Count, ...],
        Field(min_length=1),
        AfterValidator(lambda shots: tuple(sorted(set(shots)))),
    ] = (16,)
    draws: _Count = 1
    datasets: tuple[SetConfig, ...] = Field(min_length=1)
    preset: Annotated[StrictStr, _among(*PRESETS)] = "untuned"
    models: tuple[ModelPair, ...] = Field(min_length=1)
    prompts: Mapping[StrictStr, Mapping[StrictStr, _Prompt]] = Field(default_factory=dict)
    protocols: Annotated[tuple[StrictStr, ...], Field(min_length=1), _among(*PROTOCOLS)] = (
        "clean",
    )
    convention: Annotated[StrictStr, _among(*metrics.CONVENTIONS)] = "exact"
    studies: Annotated[
        tuple[StrictStr, ...] | None,
        BeforeValidator(lambda studies: None if studies == "all" else studies),
    ] = None
    imagenet_rules: _Rules = _AS_PUBLISHED
    shared_images: Annotated[StrictStr, _among("drop", "keep")] = "drop"
    near_duplicates: StrictBool = False
    device: StrictStr = "auto"
    precision: StrictStr = "float32"
    max_pixels: _Count = DEFAULT_LIMITS.max_pixels
    # Paths of prompts are relative to it.
    _folder: Path = PrivateAttr(Path())

    @model_validator(mode="before")
    @classmethod
    def _pass_rules_on(cls, table: Any) -> Any:
        """Give the sets of the catalogue the study's rules, unless they have their own."""
        if not isinstance(table, dict) or "imagenet_rules" not in table:
            return table
        sets = table.get("datasets")
        if isinstance(sets, list | tuple):
            own = {"imagenet_rules": table["imagenet_rules"]}
            sets = [{**own, **s} if isinstance(s, dict) and "root" in s else s for s in sets]
        return {**table, "datasets": sets}

    def model_post_init(self, context: Any) -> None:
        """Keep the folder of the file; it is in no field."""
        if context:
            self._folder = Path(context["folder"])

    @model_validator(mode="after")
    def _check_prompts(self) -> Self:
        """Read every prompt, and know every data set that one is for."""
        own = [dataset.name for dataset in self.datasets]
        for name, by_set in self.prompts.items():
            self._check_table(name, by_set)
            for key, prompt in by_set.items():
                if key != _DEFAULT and key not in own and not datasets.is_known(key):
                    hint = did_you_mean(key, (*own, *datasets.names(), _DEFAULT))
                    raise InputError(
                        f"`{name}` of `prompts` has a prompt for {key!r}, which is no data set"
                        + (f"; {hint}" if hint else ".")
                    )
                if prompt not in datasets.PROMPT_PRESETS:
                    self._read_prompt(prompt)
        for pair in self.models:
            named = pair.prompt in self.prompts or pair.prompt in datasets.PROMPT_PRESETS
            if pair.prompt is not None and not named:
                self._read_prompt(pair.prompt)
        return self

    def _check_table(self, name: str, by_set: Mapping[str, Any]) -> None:
        """Refuse a table of prompts of which a part would be passed over in silence."""
        if name in datasets.PROMPT_PRESETS:
            raise InputError(
                f"`prompts` has a table `{name}`, which is the name of templates that are built "
                "in: rows could not say which were used. Give it another name."
            )
        if not by_set:
            raise InputError(f"The table `{name}` of `prompts` is empty: give it templates.")
        first: dict[str, str] = {}
        own = {dataset.name for dataset in self.datasets}
        for key in by_set:
            meant = key if key in own else _name_of_set(key)
            if meant in first:
                raise InputError(
                    f"`{name}` of `prompts` has two prompts for {meant}, as {first[meant]!r} and "
                    f"{key!r}: remove one."
                )
            first[meant] = key

    @model_validator(mode="after")
    def _check_cells(self) -> Self:
        """Refuse what would be two cells with one name."""
        pairs = [(pair.vlm, pair.vision, pair.prompt_label) for pair in self.models]
        splits = [f"{data.name}/{split}" for data in self.datasets for split in data.splits]
        for key, names in (("models", pairs), ("datasets", splits), ("protocols", self.protocols)):
            first: dict[Any, int] = {}
            for position, name in enumerate(names, 1):
                if name in first:
                    shown = name if isinstance(name, str) else " + ".join(filter(None, name))
                    remedy = (
                        "Give one another `name`, or remove it."
                        if key == "datasets"
                        else "Remove one."
                    )
                    raise InputError(
                        f"Expected the entries of `{key}` to differ, but {shown} is there twice: "
                        f"their rows could not be told apart. {remedy}"
                    )
                first[name] = position
        return self

    @model_validator(mode="after")
    def _check_link(self) -> Self:
        """Refuse SigLIP's sigmoid where settings are meant for the softmax, as `fit` does."""
        selects = self.preset in ("loo", "validation")
        for score, given in self.parameters.items():
            if given.get("link", "softmax") == "softmax":
                continue
            if "paper" in self.protocols:
                raise InputError(
                    f"`parameters` of {score}: the protocol `paper` fixes the logit scale at 100, "
                    "for which the model's bias is not meant: use `clean` with the link `sigmoid`."
                )
            if selects and free_settings(score, given):
                raise InputError(
                    f"`parameters` of {score}: the preset `{self.preset}` selects for the link "
                    "`softmax` alone: give the weight with the link `sigmoid`."
                )
        return self

    @model_validator(mode="after")
    def _check_unused(self) -> Self:
        """Refuse templates that are there for nothing, when all else is right."""
        for name in self.prompts:
            if name not in [pair.prompt for pair in self.models]:
                raise InputError(
                    f'`prompts` has a table `{name}`, but no model says prompt = "{name}". Let one '
                    "say it, or remove the table."
                )
        return self

    def _read_prompt(self, prompt: str | tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(prompt, str) and "{" not in prompt:
            path = self._folder / prompt
            if not path.is_file():
                names = (*self.prompts, *datasets.PROMPT_PRESETS)
                hint = did_you_mean(prompt, names) or did_you_mean(prompt.lower(), names)
                raise InputError(
                    "Expected `prompt` to be a template with {} for the class name, a list of "
                    f"them, a text file of them, or one of {', '.join(names)}, but got "
                    f"{prompt!r}. {hint[:1].upper()}{hint[1:]}".rstrip()
                )
            return read_prompts(path)
        return read_prompts(prompt)

    def templates_of(
        self, models: ModelPair, dataset: FolderSet | CatalogueSet
    ) -> tuple[str, ...] | None:
        """Return the prompt templates of a model on a data set; None for the model's own."""
        prompt = models.prompt
        if isinstance(prompt, str):
            if prompt in self.prompts:
                table = self.prompts[prompt]
                by_set = {_name_of_set(key): value for key, value in table.items()}
                prompt = table.get(dataset.name, by_set.get(dataset.name, table.get(_DEFAULT)))
            if isinstance(prompt, str) and prompt in datasets.PROMPT_PRESETS:
                return datasets.prompt_templates(prompt, dataset.name)
        return None if prompt is None else self._read_prompt(prompt)

    @model_validator(mode="after")
    def _check_validation(self) -> Self:
        for dataset in self.datasets if self.preset in ("loo", "validation") else ():
            if isinstance(dataset, CatalogueSet) and dataset.rules.shots_from == "test":
                raise InputError(
                    f"The shots of `{dataset.name}` are test images (shots_from), and the preset "
                    f"`{self.preset}` would select settings on what is tested. Take another preset."
                )
        for dataset in self.datasets if self.preset == "validation" else ():
            if isinstance(dataset, FolderSet):
                lacks = dataset.validation is None
                remedy = f' of `{dataset.name}`: name their folder with val = "...", or'
            else:
                lacks = "val" not in datasets.get(dataset.name).splits
                remedy = f", and `{dataset.name}` has none:"
            if lacks:
                raise InputError(
                    f"The preset `validation` needs validation images{remedy} "
                    'take preset = "loo", which selects on the shots.'
                )
        return self

    def parameters_of(self, dataset: FolderSet | CatalogueSet) -> dict[str, dict[str, Any]]:
        """Return each score's parameters for one data set; what the user wrote comes first."""
        chosen: dict[str, dict[str, Any]] = {}
        if self.preset == "paper" and isinstance(dataset, CatalogueSet):
            released = datasets.preset(dataset.name)
            for score in SELECTABLE:
                own = get(score).parameters
                chosen[score] = {k: v for k, v in released.items() if v is not None and k in own}
        for score, settings in self.parameters.items():
            chosen[score] = {**chosen.get(score, {}), **settings}
        return chosen

    @property
    def n_cells(self) -> int:
        """Number of points of the grid; all scores share the shots and images of one."""
        axes = (self.datasets, self.models, self.protocols, self.shots)
        return self.draws * math.prod(map(len, axes))


def _name_of_set(key: str) -> str:
    return datasets.get(key).name if datasets.is_known(key) else key


def read_config(path: str | os.PathLike[str]) -> BenchConfig:
    """Read a study from TOML; paths in it are relative to the file.

    Raises
    ------
    InputError
        If the file cannot be read, a key is unknown or missing, or a value makes no sense. The
        message names the file and the key.
    """
    path = Path(path)
    content = read_toml(path)
    content = {"name": path.stem, "out": f"{path.stem}-results", **content}
    try:
        return BenchConfig.model_validate(content, context={"folder": path.parent})
    except ValidationError as error:
        raise InputError(f"{path}: {_describe_error(error)}") from error


# What pydantic finds wrong with a value, in the words of all errors.

_EXPECTED = {
    "int_type": "to be a whole number",
    "bool_type": "to be true or false",
    "greater_than_equal": "to be a whole number of at least {ge}",
    "string_type": "to be a text",
    "path_type": "to be a path",
    "tuple_type": "to be a list",
    "dict_type": "to be a table",
    "mapping_type": "to be a table",
    "model_type": "to be a table",
    "too_short": "to have an entry",
}


def _describe_error(error: ValidationError) -> str:
    """Say what is wrong first, and under which key."""
    first = error.errors()[0]
    # Tags say which of several types was read, and are in no file.
    keys = [key for key in first["loc"] if not str(key).startswith("<")]
    problem, context = first["type"], first.get("ctx", {})
    if problem == "value_error":
        # The message of an InputError names its key, but not the table that it stands in.
        where = f"{_describe_keys(keys)}: " if len(keys) > 1 else ""
        return f"{where}{context['error']}"
    if problem == "missing":
        return f"{_describe_keys(keys[:-1]) or 'the file'} needs `{keys[-1]}`."
    expected = _EXPECTED.get(problem, f"to be valid ({first['msg']})").format(**context)
    return f"Expected {_describe_keys(keys)} {expected}, but got {first['input']!r}."


def _describe_keys(keys: Sequence[str | int]) -> str:
    text = ""
    for key in keys:
        part = f"entry {key + 1}" if isinstance(key, int) else f"`{key}`"
        text = f"{part} of {text}" if text else part
    return text
