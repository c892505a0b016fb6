"""Options that several commands share, so that they mean and read the same everywhere."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from trustvlm.exceptions import InputError, UsageError
from trustvlm.text import join_names

if TYPE_CHECKING:
    from trustvlm.benchmark.run import Workers
    from trustvlm.images import Columns, LabelledImages, Limits
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.labellers import Labeller


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, one of several as cuda:1, or mps.")]
Precision = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Draft = Annotated[
    bool, typer.Option("--draft", help="Decode large JPEGs at a reduced size, for speed.")
]
MaxPixels = Annotated[
    int,
    typer.Option(
        metavar="N", min=64, help="Width times height of one image as it is decoded, at most."
    ),
]
# As `Limits` has them, which is not imported for every `--help`.
MAX_PIXELS = 100_000_000
MAX_ARCHIVE_MEMBERS = 2_000_000
ImageSeconds = Annotated[
    float, typer.Option(metavar="N", min=0.001, help="Time for reading and decoding one image.")
]
MaxArchiveBytes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="What an archive may expand to. [default: 100 times its size, and at least 4 GiB]",
    ),
]
MaxArchiveMembers = Annotated[
    int, typer.Option(metavar="N", min=1, help="Files in one archive, at most.")
]
ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL.trust", help="A directory made by `trustvlm fit`.")
]
PathColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Column of paths or URLs, in tables and Parquet files.")
]
LabelColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Column of classes, in tables and Parquet files.")
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column of images, in Parquet files. [default: the only one with bytes]",
    ),
]

GroupColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column of what images have in common that are not independent of each other, such as "
        "the scene of a frame, or a patient: one image of each group is used, drawn at random, and "
        "every group counts once.",
    ),
]


def labelled_argument(metavar: str = "LABELLED", more: str = "") -> Any:
    """Make the argument of labelled images: a path, or a URL, which no `Path` holds."""
    return typer.Argument(
        metavar=metavar,
        help="Folder of class folders, a tar or zip archive of some, or with labels beside images "
        "(.cls, .json), or a CSV, JSON Lines or Parquet file with the columns path (or the bytes "
        f"of images) and label{more}.",
        show_default=False,
    )


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Images, folders, CSVs with the column path, text files with a path a line, tar "
        "archives, Parquet files with images, or URLs of these.",
    ),
]
BatchSize = Annotated[int, typer.Option(metavar="N", min=1, help="Images per forward pass.")]
Vlm = Annotated[
    str,
    typer.Option(
        help="The model that predicts; see `trustvlm models`. With `none`, labels from elsewhere "
        "are judged: `trustvlm verify`."
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        metavar="REVISION",
        help="Commit, tag or branch of the VLM's repository, as --vlm NAME@REVISION has it. That "
        "of the other encoder is written --vision NAME@REVISION. [default: the latest]",
    ),
]
Prompt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEMPLATE",
        help="Template with {} for the name, or a file of templates. Repeatable, for an ensemble. "
        "[default: the model's own]",
    ),
]
OtherClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--other-class",
        metavar="NAME",
        help='What else images may show, such as "something else": the text may choose it, and '
        "such images are never accepted. Repeatable.",
    ),
]
Scores = Annotated[
    str, typer.Option(help='"all", or names such as "msp,trustvlm"; see `trustvlm scores`.')
]
ProbabilityLink = Annotated[
    str | None,
    typer.Option(
        metavar="softmax|sigmoid",
        help="What makes probabilities of SigLIP's logits, for msp, margin and trustvlm: over the "
        "classes, or of each class by itself. [default: softmax]",
    ),
]
Convention = Annotated[
    str, typer.Option(help="Of the metrics: exact, or trustvlm (the released script's rules).")
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace a model that is calibrated; its calibration is then lost."
    ),
]
OverwriteSource = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace the model that is read, or another that is calibrated; that is then lost.",
    ),
]
ExcludeShots = Annotated[
    bool,
    typer.Option(
        "--exclude-shots",
        help="Leave out images that the model was made with, such as its shots, instead of "
        "refusing.",
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="A Python file that registers scores, metrics, encoder backends or data sets; it is "
        "executed. Or a TOML file of data sets. Repeatable.",
    ),
]


VerdictsFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.{csv,jsonl,parquet}",
        help="Where to write. [default: CSV to standard output]",
    ),
]
Risk = Annotated[
    float | None,
    typer.Option(help="One of the risks calibrated for. [default: the first of them]"),
]
WhenInvalid = Annotated[
    Literal["review", "keep"],
    typer.Option(
        help="What becomes of accepted labels if the images are not like those that the model was "
        "calibrated on."
    ),
]
SortInto = Annotated[
    Path | None,
    typer.Option(
        "--sort-into",
        metavar="FOLDER",
        help="Copy each picture into accepted/LABEL/ or review/LABEL/ in a new folder; index.csv "
        "says which is which. Rows are then written with -o only.",
    ),
]
Symlink = Annotated[
    bool,
    typer.Option(
        "--symlink",
        help="With --sort-into: make symbolic links to pictures that are files here, instead of "
        "copies.",
    ),
]
Synonyms = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Other words for classes: a CSV or JSON Lines file with the columns label and class.",
    ),
]


GivenLabels = Annotated[
    str | None,
    typer.Option(
        metavar="LABELS",
        help="Labels from elsewhere of the same images, as `trustvlm verify` takes them: they are "
        "judged instead of the model's own. The images are matched by their files.",
    ),
]
GivenColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Column of the given labels, in tables.")
]
ConfidenceColumn = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Column of the probabilities that came with the labels; '' reads none. The default "
        "one may be missing.",
    ),
]
UnknownLabels = Annotated[
    Literal["review", "error"], typer.Option(help="What becomes of labels that are no class.")
]
Probabilities = Annotated[
    bool,
    typer.Option(
        "--probabilities",
        help="The table of given labels has one column of probability per class, called by its "
        "name: the label is the most probable class, and its probability came with it.",
    ),
]


# Groups of options, each one parameter of a command, see `with_groups`.


@dataclass(frozen=True)
class ColumnOptions:
    """How the columns of tables of labelled images are called."""

    path_column: PathColumn = "path"
    label_column: LabelColumn = "label"
    image_column: ImageColumn = None

    @property
    def named(self) -> Columns:
        """As the API takes them."""
        return columns(self.path_column, self.image_column, self.label_column)


@dataclass(frozen=True)
class LimitOptions:
    """Bounds on images and on archives of them."""

    max_pixels: MaxPixels = MAX_PIXELS
    max_archive_bytes: MaxArchiveBytes = None
    max_archive_members: MaxArchiveMembers = MAX_ARCHIVE_MEMBERS

    def limits(self, **bounds: Any) -> Limits:
        """Return them as the API takes them; `bounds` are others of `Limits`."""
        from trustvlm.images import Limits

        return Limits(**vars(self), **bounds)


@dataclass(frozen=True)
class GivenLabelOptions:
    """Labels from elsewhere, beside the images that a command reads."""

    given_labels: GivenLabels = None
    given_column: GivenColumn = "label"
    confidence_column: ConfidenceColumn = "label_confidence"
    probabilities: Probabilities = False
    synonyms: Synonyms = None
    unknown_labels: UnknownLabels = "review"

    def check(self) -> None:
        """Make sure, before anything else is read, that labels are given and synonyms can be read.

        Raises
        ------
        UsageError
            If options say how to read labels that are not given.
        InputError
            As `read_synonyms`.
        """
        if self.given_labels is None and self != GivenLabelOptions():
            raise UsageError(
                "--given-column, --confidence-column, --probabilities, --synonyms and "
                "--unknown-labels say how labels are read: name these with --given-labels."
            )
        columns_named = (self.given_column, self.confidence_column) != ("label", "label_confidence")
        if self.probabilities and columns_named:
            raise UsageError(
                "--given-column and --confidence-column do not go with --probabilities: its "
                "columns are called as the classes."
            )
        read_synonyms(self.synonyms)

    def read(self, trust: TrustVLM, path_column: str, image_column: str | None) -> dict[str, Any]:
        """Read them as `TrustVLM.calibrate`, `evaluate` and `labeller` take them.

        Raises
        ------
        InputError
            As `read_given` and `read_synonyms`.
        """
        given = None
        if self.given_labels is not None:
            with renamed_options({"--label-column": "--given-column"}):
                given = read_given(
                    self.given_labels,
                    trust,
                    columns(path_column, image_column, self.given_column),
                    self.confidence_column,
                    probabilities=self.probabilities,
                )
        return {
            "given_labels": given,
            "synonyms": read_synonyms(self.synonyms),
            "unknown_labels": self.unknown_labels,
        }

    def labeller(
        self, trust: TrustVLM, path_column: str, image_column: str | None
    ) -> Labeller | None:
        """Return whose labels are judged; None for the model's own. Raises as `read`."""
        return trust.labeller(*self.read(trust, path_column, image_column).values())


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option for each field of the groups among its parameters.

    A group is a dataclass of options: the command declares one parameter of that type, and gets it
    filled. typer itself has no groups.

    Examples
    --------
    >>> def show(*, bounds: LimitOptions, quiet: Quiet = False) -> None:
    ...     print(bounds.max_pixels)
    >>> list(inspect.signature(with_groups(show)).parameters)
    ['max_pixels', 'max_archive_bytes', 'max_archive_members', 'quiet']
    >>> with_groups(show)(max_pixels=100, max_archive_bytes=None, max_archive_members=1)
    100
    """
    signature = inspect.signature(command, eval_str=True)
    parameters: dict[str, inspect.Parameter] = {}
    groups: dict[str, tuple[Any, list[str]]] = {}
    for name, parameter in signature.parameters.items():
        own = {name: parameter}
        group: Any = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            own = dict(inspect.signature(group, eval_str=True).parameters)
            groups[name] = group, list(own)
        # By keyword only, so that one without a default may follow one with it.
        parameters |= {key: one.replace(kind=one.KEYWORD_ONLY) for key, one in own.items()}

    @functools.wraps(command)
    def filled(**values: Any) -> None:
        made = {
            name: group(**{field: values.pop(field) for field in fields})
            for name, (group, fields) in groups.items()
        }
        command(**values, **made)

    filled.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    return filled


@contextmanager
def renamed_options(names: Mapping[str, str]) -> Iterator[None]:
    """Let errors name the options that the user has, where a command calls them otherwise.

    Examples
    --------
    >>> with renamed_options({"--label-column": "--given-column"}):
    ...     raise InputError("There is none (--label-column).")
    Traceback (most recent call last):
    trustvlm.exceptions.InputError: There is none (--given-column).
    """
    try:
        yield
    except InputError as error:
        message = str(error)
        for name, own in names.items():
            message = message.replace(name, own)
        raise InputError(message) from error


def options_given(context: typer.Context) -> frozenset[str]:
    """Name the parameters that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(n for n, s in sources.items() if getattr(s, "name", "") == "COMMANDLINE")


def refuse_options(context: typer.Context, names: Mapping[str, str], why: str) -> None:
    """Raise `UsageError` if options are given that would be ignored.

    Parameters
    ----------
    context
        Of the command.
    names
        The options that would be, by the names of their parameters.
    why
        Continues the sentence that begins with the option.
    """
    given = options_given(context)
    if ignored := [option for name, option in names.items() if name in given]:
        raise UsageError(f"{join_names(ignored)} {why}")


def check_successor(
    model: str | os.PathLike[str], output: str | os.PathLike[str], *, overwrite: bool
) -> str:
    """Return what is lost where a changed model is written, before any work is done.

    Raises
    ------
    InputError
        If the model that is changed would be replaced without `--overwrite`.
    ArtefactError
        As `check_target`.
    """
    from trustvlm.pipeline.artefact import check_target

    lost = check_target(output, overwrite=overwrite)
    if not overwrite and os.path.realpath(model) == os.path.realpath(output):
        raise InputError(
            f"Expected a new name for the changed model, but {os.fspath(output)!r} is the one that "
            "is changed, which would be gone. Name another folder, or say --overwrite."
        )
    return lost


def read_given(
    labels: str,
    trust: TrustVLM,
    named: Columns,
    confidence: str,
    *,
    probabilities: bool,
) -> LabelledImages:
    """List labels from elsewhere within the model's limits.

    Raises
    ------
    InputError
        As `find_labelled` or, with `probabilities`, `find_most_probable`.
    """
    from trustvlm.images import find_labelled, find_most_probable

    if probabilities:
        return find_most_probable(labels, trust.classes_, path_column=named["path_column"])
    return find_labelled(labels, **named, confidence_column=confidence, limits=trust.limits)


def read_synonyms(file: Path | None) -> dict[str, str] | None:
    """Read which class each other word means; None without a file.

    Raises
    ------
    InputError
        If the file cannot be read, has no such columns, or gives one word two meanings.
    """
    if file is None:
        return None
    from trustvlm.images.locations import Location
    from trustvlm.images.tables import read_table

    synonyms: dict[str, str] = {}
    for label, name in read_table(Location.of(file), ("label", "class"), renamed_by=""):
        if synonyms.setdefault(label, name) != name:
            raise InputError(
                f"Expected {str(file)!r} to give each label one class, but {label!r} has "
                f"{synonyms[label]!r} and {name!r}."
            )
    return synonyms


def vision_option(what_it_does: str) -> Any:
    """Make the option of the second encoder, for a command in which it does something."""
    return typer.Option(
        help=f"The encoder that {what_it_does}; `same` is the VLM's own image tower. "
        "[default: dinov2-base; offline with --vlm offline]",
    )


def classes_option(default: str = "") -> Any:
    """Make the option of the names of classes."""
    return typer.Option(
        help='Names "a,b,c", one with a comma in quotation marks; or a file with a name, or '
        f"folder, tab and name, on each line, or as CSV, JSON or YAML. {default}".rstrip()
    )


def json_option(help: str) -> Any:
    """Make the option `--json FILE`, for what a command can write as JSON."""
    return typer.Option("--json", metavar="FILE", help=help, callback=checked_file)


def checked_sorting(folder: Path | None, *, symlink: bool) -> None:
    """Refuse a folder that pictures cannot be sorted into, before any work is done."""
    from trustvlm.pipeline.sorting import check_sorting

    if folder is not None:
        check_sorting(folder)
    elif symlink:
        raise UsageError("--symlink says how --sort-into does it: name a folder with --sort-into.")


class _PlainHelp:
    """Help without the types of flags and arguments, which typer names as Python does."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write it."""
        for parameter in self.get_params(ctx):  # type: ignore[attr-defined]
            if parameter.param_type_name == "argument":
                parameter.display_type_rich = lambda **_: None
            elif parameter.is_flag:
                parameter.metavar = ""
        super().format_help(ctx, formatter)  # type: ignore[misc]


class PlainCommand(_PlainHelp, TyperCommand):
    """A command with plain help."""


class PlainGroup(_PlainHelp, TyperGroup):
    """A group of commands with plain help."""


class OutputCommand(PlainCommand):
    """A command that keeps what it writes apart from what it reads."""

    def invoke(self, ctx: Any) -> Any:
        """Run it, unless an output would replace an input or a picture."""
        keep_apart(ctx.params)
        return super().invoke(ctx)


# Parameters of commands that name a file to write; a state is read as well.
_OUTPUTS = ("output", "json_file", "state", "svg", "verdicts")


def keep_apart(parameters: Mapping[str, Any]) -> None:
    """Refuse outputs of a command that are another file of it, a picture or a part of a model.

    Raises
    ------
    InputError
        That says which.
    """
    from trustvlm.files import url_of
    from trustvlm.images.formats import is_image_content
    from trustvlm.images.locations import Location, read_head

    named = {
        name: [v for v in (value if isinstance(value, list) else [value]) if _is_name(v)]
        for name, value in parameters.items()
    }
    for output in _OUTPUTS:
        for file in named.get(output, []):
            if url_of(file) is not None or os.path.isdir(file):  # noqa: PTH112
                continue
            path = os.path.realpath(file)
            others = [v for name, values in named.items() if name != output for v in values]
            same = next((v for v in others if os.path.realpath(Location.of(v).text) == path), None)
            what = ""
            if same is not None and not os.path.isdir(path):  # noqa: PTH112
                what = "is an input too, or another output"
            elif Path(path).parent.suffix == ".trust":
                what = "is a file inside a model"
            elif is_image_content(read_head(Location(path), 256)):
                what = "is a picture"
            if what:
                raise InputError(
                    f"Expected outputs that replace nothing of yours, but {os.fspath(file)!r} "
                    f"{what}. Name another file."
                )


def _is_name(value: object) -> bool:
    return isinstance(value, str | Path) and str(value) not in ("", "-", os.devnull)


def checked_file(file: Path | None) -> Path | None:
    """Refuse an output file that cannot be written, before any work is done."""
    from trustvlm.files import check_file

    if file is not None:
        check_file(file)
    return file


def columns(path: str, image: str | None, label: str = "label") -> Columns:
    """Name the columns of tables as the API takes them.

    Examples
    --------
    >>> columns("file", None)
    {'path_column': 'file', 'label_column': 'label', 'image_column': None}
    """
    return {"path_column": path, "label_column": label, "image_column": image}


def in_groups(columns: Columns, group_column: str | None) -> Columns:
    """Name the column of groups beside the others.

    Examples
    --------
    >>> in_groups({"path_column": "file"}, "scene")
    {'path_column': 'file', 'group_column': 'scene'}
    """
    return {**columns, "group_column": group_column}


def encoder_settings(vlm: str, vision: str | None, prompt: list[str] | None) -> dict[str, Any]:
    """Name both encoders and the prompts as `TrustVLM` takes them.

    Examples
    --------
    >>> encoder_settings("offline", None, ["a {}."])
    {'vlm': 'offline', 'vision': 'offline', 'prompt': 'a {}.'}
    """
    return {
        "vlm": vlm,
        "vision": vision or ("offline" if vlm == "offline" else "dinov2-base"),
        "prompt": prompt[0] if prompt is not None and len(prompt) == 1 else prompt,
    }


def at_revision(vlm: str, revision: str | None) -> str:
    """Name the VLM with its revision, for `--revision`; None leaves it as it is.

    Raises
    ------
    UsageError
        If it names another one already, or has none.
    """
    if revision is None:
        return vlm
    from trustvlm.models.registry import at_revision

    try:
        return at_revision(vlm, revision)
    except InputError as error:
        raise UsageError(
            f"{error} --revision is of --vlm; that of the other encoder is written "
            "--vision NAME@REVISION."
        ) from error


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Read `name=value` settings of a score; values are JSON where they can be.

    Examples
    --------
    >>> parse_settings(["weight=0.5"])
    {'weight': 0.5}
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise UsageError(f"Expected --set to be NAME=VALUE, but got {setting!r}.")
        try:
            parsed[name.strip()] = json.loads(value)
        except ValueError:
            parsed[name.strip()] = value
    return parsed


def split_names(value: str | None) -> list[str] | None:
    """Split a comma-separated list; None stays None.

    Examples
    --------
    >>> split_names("msp, trustvlm")
    ['msp', 'trustvlm']
    """
    return None if value is None else [part.strip() for part in value.split(",") if part.strip()]


def score_names(value: str) -> list[str] | None:
    """Split a list of scores; None stands for all of them.

    Examples
    --------
    >>> score_names("msp,trustvlm"), score_names("all")
    (['msp', 'trustvlm'], None)
    """
    return split_names(None if value == "all" else value)


def load_plugins(plugins: list[Path] | None) -> None:
    """Register what installed packages and files bring, and add the data sets of TOML files."""
    from trustvlm.plugins import load_installed, load_plugin

    load_installed()
    for plugin in plugins or []:
        if _is_catalogue(plugin):
            from trustvlm.datasets import add_catalogue

            add_catalogue(plugin)
        else:
            load_plugin(plugin)


def _is_catalogue(plugin: Path) -> bool:
    return plugin.suffix.lower() == ".toml"


# Options that the benchmark's commands share.

Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Processes that share the work; results do not depend on it. [default: one a core]",
    ),
]


def distinct(tests: list[Path]) -> list[Path]:
    """Return files whose names tell them apart.

    Raises
    ------
    InputError
        If two have one stem, by which rows name their data set.
    """
    stems = [test.stem for test in tests]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise UsageError(
            f"Expected test files with distinct names, but these repeat: {', '.join(twice)}."
        )
    return tests


def whole_numbers(text: str) -> list[int]:
    """Read a list such as `1,2,4`, ascending.

    Examples
    --------
    >>> whole_numbers("4,1,4")
    [1, 4]
    """
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise UsageError(f"Expected --shots such as 1,2,4,8,16, but got {text!r}.") from error


def workers(jobs: int | None, plugins: list[Path] | None) -> Workers:
    """Return who computes the cells; one process a core unless a number is given."""
    from trustvlm.benchmark.run import Workers
    from trustvlm.environment import usable_cores

    # Data sets are read here; other processes get arrays.
    files = tuple(plugin for plugin in plugins or () if not _is_catalogue(plugin))
    return Workers(jobs or usable_cores(), files)
