"""The `course` command: each verb calls one function and says what came of it."""

import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from looplab.pythons import TESTED, too_old

if too_old(sys.version_info[:2]):
    # said here, since what follows cannot even be imported
    sys.exit(
        f"This is Python {sys.version_info[0]}.{sys.version_info[1]}; the course needs {TESTED}: "
        "start with `python3 -m uv run course open`, which fetches one."
    )

from looplab.project import INSTALL

try:
    import typer
    from typer.core import TyperCommand, TyperGroup

    from looplab import pins, workbook
    from looplab.project import CourseError, Project
    from looplab.publishing import check as checking
    from looplab.publishing import guide as guides
    from looplab.publishing import index as lesson_index
    from looplab.publishing import links as home_links
    from looplab.publishing import new as lessons_made
    from looplab.publishing import readme
    from looplab.publishing import refresh as refreshing
    from looplab.publishing import site as publishing
except ModuleNotFoundError as missing:
    sys.exit(f"The package {str(missing.name).partition('.')[0]} is not installed: {INSTALL}.")


class OneSentence(TyperGroup):
    """Shows a CourseError as its sentence, without traceback, and exits with 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CourseError as error:
            typer.echo(error, err=True)
            raise typer.Exit(1) from None


class PassesArgumentsOn(TyperCommand):
    """Keeps what follows `--` for another program; has no options of its own but --help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        place = args.index("--") if "--" in args else len(args)
        ctx.obj = args[place + 1 :]
        for option in args[:place]:
            if option.startswith("-") and option != "--help":
                raise typer.BadParameter(
                    f"{option} is no option of `course open`; what is for `jupyter lab` follows "
                    f"--, as in: course open -- {option}",
                    ctx=ctx,
                )
        return super().parse_args(ctx, args[:place])


app = typer.Typer(
    cls=OneSentence,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(metadata.version("fastapi-async-course"))
        raise typer.Exit


@app.callback()
def course(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Async patterns for FastAPI, as notebooks that run."""


Lessons = Annotated[
    list[str] | None,
    typer.Argument(metavar="[LESSON]...", help="Numbers or names; all when left out."),
]


@app.command(name="open", cls=PassesArgumentsOn)
def open_(
    ctx: typer.Context,
    lesson: Annotated[
        str | None, typer.Argument(help="Its number or name, such as 2, 02 or 02_gather.")
    ] = None,
) -> None:
    """Copy new lessons into workbook/ and start JupyterLab there.

    What follows -- goes to `jupyter lab`: course open 02 -- --no-browser --port 8890
    """
    code = workbook.open_workbook(Project.here(), lesson, ctx.obj, partial(typer.echo, err=True))
    raise typer.Exit(code)


@app.command(name="workbook")
def workbook_() -> None:
    """Copy new lessons into workbook/ and start nothing: for VS Code, Codespaces and Binder."""
    project = Project.here()
    for line in workbook.fill_workbook(project):
        typer.echo(line, err=True)
    typer.echo(f"The lessons stand in {project.workbook.name}/; begin with 00_start_here.ipynb.")


@app.command()
def reset(
    lesson: Annotated[str, typer.Argument(help="Its number or name, such as 2, 02 or 02_gather.")],
) -> None:
    """Restore a lesson in workbook/ and keep your version beside it."""
    kept = workbook.reset_lesson(Project.here(), lesson)
    typer.echo(f"{kept.copy.name} is as published.")
    if kept.mine:
        typer.echo(f"Your version is kept as {kept.mine.name}.")


@app.command()
def refresh(lessons: Lessons = None) -> None:
    """Run lessons of notebooks/ from top to bottom and save them with clean outputs."""
    project = Project.here()
    runs = refreshing.refresh(project, lessons or [])
    if readme.LESSON in {run.lesson.number for run in runs}:
        readme.write_picture(project)


@app.command()
def check(lessons: Lessons = None) -> None:
    """Say, without executing, which lessons are stale, out of order, too large or failing."""
    typer.echo(checking.check(Project.here(), lessons or []))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="A word, such as retries, or 14_retries.")],
) -> None:
    """Write the skeleton of a new lesson: its notebook, its checker and its row in the table."""
    project = Project.here()
    for path in lessons_made.new_lesson(project, name):
        typer.echo(path.relative_to(project.root).as_posix())
    typer.echo("Each sentence to write begins with TODO; CONTRIBUTING.md says what comes next.")


@app.command()
def index() -> None:
    """Write the tables of README.md and of lesson 00 from support/looplab/lessons.toml."""
    project = Project.here()
    changed = lesson_index.write_index(project)
    for path in changed:
        typer.echo(f"{path.relative_to(project.root).as_posix()} is written.")
    if not changed:
        typer.echo("The tables are as support/looplab/lessons.toml says.")


@app.command()
def links(
    address: Annotated[
        str | None, typer.Argument(help="Where the repository stands on GitHub: OWNER/NAME.")
    ] = None,
) -> None:
    """Write the links of Codespaces, Binder and Colab for the repository's public address.

    The address is kept in pyproject.toml, so it need not be typed again.
    """
    project = Project.here()
    if address is not None:
        home_links.note(project, address)
    for path in home_links.write_links(project):
        typer.echo(f"{path.relative_to(project.root).as_posix()} is written.")
    typer.echo(home_links.badges(project))


@app.command()
def pin(
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Take the newest version of each package.")
    ] = False,
) -> None:
    """Write exact versions of all packages into constraints.txt and pyproject.toml."""
    lines = pins.pin(Project.here(), upgrade=upgrade)
    typer.echo(f"constraints.txt and pyproject.toml name {lines} exact versions.")


@app.command()
def site(
    output: Annotated[Path, typer.Option(help="The folder to build into; it is replaced.")] = Path(
        "build/site"
    ),
) -> None:
    """Build the reading site from the saved outputs, without executing a lesson."""
    typer.echo(publishing.build_site(Project.here(), output))


@app.command()
def guide(
    output: Annotated[Path, typer.Option(help="The file to write; it is replaced.")] = Path(
        "build/guide.html"
    ),
) -> None:
    """Write the instructors' guide: syllabi, wrong predictions, usual mistakes and what to say."""
    typer.echo(guides.write_guide(Project.here(), output))
