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

from looplab.project import INSTALL, CourseError, Project

try:
    import typer
    from typer.core import TyperCommand, TyperGroup
except ModuleNotFoundError as missing:
    sys.exit(f"The package {str(missing.name).partition('.')[0]} is not installed: {INSTALL}.")


class OneSentence(TyperGroup):
    """Shows a CourseError as its sentence, without traceback, and exits with 1.

    A package that is missing is told so too: all but `course xray` need those of the notebooks,
    and import them when they are called.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CourseError as error:
            sentence = str(error)
        except ModuleNotFoundError as missing:
            sentence = (
                f"The notebooks need the package {str(missing.name).partition('.')[0]}, which is "
                f"not installed: {INSTALL}."
            )
        typer.echo(sentence, err=True)
        raise typer.Exit(1)


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
    """Async patterns for FastAPI, as notebooks that run, and the x-ray of an app of yours."""


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
    from looplab import workbook

    code = workbook.open_workbook(Project.here(), lesson, ctx.obj, partial(typer.echo, err=True))
    raise typer.Exit(code)


@app.command(name="workbook")
def workbook_() -> None:
    """Copy new lessons into workbook/ and start nothing: for VS Code, Codespaces and Binder."""
    from looplab import workbook

    project = Project.here()
    for line in workbook.fill_workbook(project):
        typer.echo(line, err=True)
    typer.echo(f"The lessons stand in {project.workbook.name}/; begin with 00_start_here.ipynb.")


@app.command()
def reset(
    lesson: Annotated[str, typer.Argument(help="Its number or name, such as 2, 02 or 02_gather.")],
) -> None:
    """Restore a lesson in workbook/ and keep your version beside it."""
    from looplab import workbook

    kept = workbook.reset_lesson(Project.here(), lesson)
    typer.echo(f"{kept.copy.name} is as published.")
    if kept.mine:
        typer.echo(f"Your version is kept as {kept.mine.name}.")


@app.command()
def refresh(lessons: Lessons = None) -> None:
    """Run lessons of notebooks/ from top to bottom and save them with clean outputs."""
    from looplab.publishing import readme
    from looplab.publishing import refresh as refreshing

    project = Project.here()
    runs = refreshing.refresh(project, lessons or [])
    if readme.LESSON in {run.lesson.number for run in runs}:
        readme.write_picture(project)


@app.command()
def check(lessons: Lessons = None) -> None:
    """Say, without executing, which lessons are stale, out of order, too large or failing."""
    from looplab.publishing import check as checking

    typer.echo(checking.check(Project.here(), lessons or []))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="A word, such as caching, or 21_caching.")],
) -> None:
    """Write the skeleton of a new lesson: its notebook, its checker and its row in the table."""
    from looplab.publishing import new as lessons_made

    project = Project.here()
    for path in lessons_made.new_lesson(project, name):
        typer.echo(path.relative_to(project.root).as_posix())
    typer.echo("Each sentence to write begins with TODO; CONTRIBUTING.md says what comes next.")


@app.command()
def index() -> None:
    """Write the tables of README.md and of lesson 00 from support/looplab/lessons.toml."""
    from looplab.publishing import index as lesson_index

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
    from looplab.publishing import links as home_links

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
    from looplab import pins

    lines = pins.pin(Project.here(), upgrade=upgrade)
    typer.echo(f"constraints.txt and pyproject.toml name {lines} exact versions.")


@app.command()
def site(
    output: Annotated[Path, typer.Option(help="The folder to build into; it is replaced.")] = Path(
        "build/site"
    ),
) -> None:
    """Build the reading site from the saved outputs, without executing a lesson."""
    from looplab.publishing import site as publishing

    typer.echo(publishing.build_site(Project.here(), output))


@app.command()
def guide(
    output: Annotated[Path, typer.Option(help="The file to write; it is replaced.")] = Path(
        "build/guide.html"
    ),
) -> None:
    """Write the instructors' guide: syllabi, wrong predictions, usual mistakes and what to say."""
    from looplab.publishing import guide as guides

    typer.echo(guides.write_guide(Project.here(), output))


@app.command()
def xray(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:APP", help="The app's import path, as for uvicorn.")
    ],
    requests: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[METHOD] PATH]...",
            help="What to send, such as GET /orders; else GET /.",
        ),
    ] = None,
    app_dir: Annotated[
        Path, typer.Option(help="The folder to import the app from, as uvicorn has it.")
    ] = Path(),
    factory: Annotated[
        bool, typer.Option("--factory", help="MODULE:APP is a function that makes the app.")
    ] = False,
    body: Annotated[
        str | None,
        typer.Option(help="The body of requests that can have one, as it is; @FILE reads a file."),
    ] = None,
    json_body: Annotated[
        str | None, typer.Option(help="The same, as JSON, with the header that says so.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="A header of every request; may be repeated."),
    ] = None,
    at_once: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many requests are under way at once.")
    ] = 1,
    times: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How often each is sent; else as --at-once says."),
    ] = None,
    within: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="How long an answer is waited for.")
    ] = 10.0,
    held: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="MS", help="A step of so many milliseconds counts as a hold."
        ),
    ] = 50.0,
    ours: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PACKAGE",
            help="An installed package whose code is yours; that of MODULE unless given. May be "
            "repeated. What is no installed library is yours anyway.",
        ),
    ] = None,
    warm_up: Annotated[
        bool,
        typer.Option(help="Send each GET once before the recording begins."),
    ] = True,
    any_status: Annotated[
        bool, typer.Option("--any-status", help="Answers of 400 and above are as good as others.")
    ] = False,
    page: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path(
        "xray.html"
    ),
    json: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the figures as JSON; - for stdout.")
    ] = None,
) -> None:
    """X-ray an app of yours: what held its loop, line by line, as a page of HTML.

    It serves the app on 127.0.0.1, with its lifespan, sends the requests and stops the app again:

    course xray shop.main:app GET /orders POST /orders --json-body '{"sku": "tea"}' --at-once 20

    Exit status: 0 nothing held the loop; 1 something did; 2 what was typed can't be done; 3 the app
    did not start or stop, or a request got no answer, or one of 400 and above.
    """
    from looplab import xray_command

    order = xray_command.Order(
        app=target,
        requests=requests or [],
        app_dir=app_dir,
        factory=factory,
        body=body,
        json_body=json_body,
        headers=header or [],
        at_once=at_once,
        times=times,
        within=within,
        held=held,
        ours=ours or [],
        warm_up=warm_up,
        any_status=any_status,
        page=page,
        json=json,
    )
    status = xray_command.xray(order, typer.echo, partial(typer.echo, err=True))
    xray_command.end(status)
    raise typer.Exit(status)
