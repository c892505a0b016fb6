"""`trustvlm classes add|rename|merge|remove`: other classes for a fitted model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trustvlm.cli import console, options

if TYPE_CHECKING:
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.class_changes import ClassChange

app = typer.Typer(
    cls=options.PlainGroup,
    help="Add, rename, merge or remove classes of a fitted model; says what it means for the "
    "calibration.",
    no_args_is_help=True,
)

Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="NEW.trust", help="Where to write.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the class.", show_default=False)]
Text = Annotated[
    str | None,
    typer.Option(help="What the prompts say of the class, instead of {}. [default: its name]"),
]


def add(
    model: options.ModelPath,
    name: Name,
    shots: Annotated[
        str,
        typer.Argument(
            metavar="SHOTS",
            help="Its example images: a folder, a list, a table or an archive.",
            show_default=False,
        ),
    ],
    *,
    output: Output,
    text: Text = None,
    path_column: options.PathColumn = "path",
    image_column: options.ImageColumn = None,
    device: options.Device = "auto",
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    overwrite: options.OverwriteSource = False,
    quiet: options.Quiet = False,
) -> None:
    """Add a class with its example images.

    The calibration is dropped: none of its images shows the new class, so that the guarantee would
    not be one for images to come. The command that renews it is printed.
    """
    trust = _opened(model, output, device, plugins, overwrite, limits=bounds.limits())
    columns = options.columns(path_column, image_column)
    _written(*trust.add_class(name, shots, text=text, **columns), output, overwrite, quiet)


app.command(
    cls=options.OutputCommand,
    epilog="Example:  trustvlm classes add pets.trust hamster shots/hamster/ -o new.trust",
)(options.with_groups(add))


@app.command(
    cls=options.OutputCommand,
    epilog="Example:  trustvlm classes rename pets.trust dog 'guide dog' -o new.trust",
)
def rename(
    model: options.ModelPath,
    old: Annotated[str, typer.Argument(metavar="OLD", help="Name of the class today.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    output: Output,
    keep_prompt: Annotated[
        bool,
        typer.Option(
            "--keep-prompt",
            help="Only verdicts call it otherwise; the prompts say what they said, and the "
            "calibration holds as it is.",
        ),
    ] = False,
    device: options.Device = "auto",
    plugins: options.Plugins = None,
    overwrite: options.OverwriteSource = False,
    quiet: options.Quiet = False,
) -> None:
    """Call a class otherwise, in verdicts and in the prompts.

    With another prompt confidences are others, so the calibration is renewed on the images that it
    was made on. --keep-prompt changes the name alone. Folders keep their name: labelled images are
    read as before.
    """
    trust = _opened(model, output, device, plugins, overwrite)
    _written(*trust.rename_class(old, new, keep_prompt=keep_prompt), output, overwrite, quiet)


@app.command(
    cls=options.OutputCommand,
    epilog="Example:  trustvlm classes merge pets.trust kitten cat --into cat -o new.trust",
)
def merge(
    model: options.ModelPath,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Two classes or more.")],
    into: Annotated[
        str, typer.Option(metavar="NAME", help="What they are called together; may be one of them.")
    ],
    output: Output,
    text: Text = None,
    device: options.Device = "auto",
    plugins: options.Plugins = None,
    overwrite: options.OverwriteSource = False,
    quiet: options.Quiet = False,
) -> None:
    """Make several classes one, with the examples of all of them.

    The calibration is renewed on the images that it was made on, with their new labels.
    """
    trust = _opened(model, output, device, plugins, overwrite)
    _written(*trust.merge_classes(names, into, text=text), output, overwrite, quiet)


@app.command(
    cls=options.OutputCommand,
    epilog="Example:  trustvlm classes remove pets.trust hamster -o new.trust",
)
def remove(
    model: options.ModelPath,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of the classes.")],
    output: Output,
    device: options.Device = "auto",
    plugins: options.Plugins = None,
    overwrite: options.OverwriteSource = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove classes with their examples.

    The calibration is renewed on its images of the other classes, and holds for such images only.
    """
    trust = _opened(model, output, device, plugins, overwrite)
    _written(*trust.remove_classes(names), output, overwrite, quiet)


def _opened(
    model: Path,
    output: Path,
    device: str,
    plugins: list[Path] | None,
    overwrite: bool,
    **settings: Any,
) -> TrustVLM:
    """Load a model whose successor can be written."""
    from trustvlm.pipeline import TrustVLM

    options.load_plugins(plugins)
    options.check_successor(model, output, overwrite=overwrite)
    return TrustVLM.load(model, device=device, **settings)


def _written(
    changed: TrustVLM, change: ClassChange, output: Path, overwrite: bool, quiet: bool
) -> None:
    """Write the model and say what became of it; exit with 3 if an example cannot be read."""
    changed.save(output, overwrite=overwrite)
    for failure in change.failures:
        console.note(f"warning: left out: {failure}")
    console.say(f"{change.done}.")
    if change.calibration != "none":
        statement = change.calibration_statement.replace("NEW.trust", str(output))
        console.say(f"Calibration {change.calibration}: {statement}")
    console.note(f"{output}: {console.size_of(changed)}", quiet=quiet)
    if change.failures:
        raise typer.Exit(3)
