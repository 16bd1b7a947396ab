"""Links that open the course without an installation: Codespaces, Binder and Colab.

The address of the repository stands once, in pyproject.toml, and everything else follows it: the
badges of the README, and what the set-up cell of each lesson says where the course is missing.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from looplab.project import CourseError, Project
from looplab.publishing.notebooks import (
    AT_HOME,
    ENDING,
    MISSING,
    read_notebook,
    write_notebook,
)

FIRST_LESSON = "00"
HOST = "https://github.com/"
ADDRESS = re.compile(
    r"(?:https://github\.com/|git@github\.com:|github\.com/)?"
    r"(?P<owner>[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)
# Any Markdown line made of badges, each a linked picture.
BADGES = re.compile(r"(?:\[!\[[^]]*\]\([^)]*\)\]\([^)]*\)\s*)+")
NOTED = re.compile(r'^\[tool\.course\]\nrepository = ".*"$', re.M)
NO_ADDRESS = "No address of a repository is noted yet: `course links OWNER/NAME` notes one."
COLUMNS = 80


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on GitHub, which Codespaces, Binder and Colab all open."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def install(self) -> str:
        """What a notebook elsewhere runs to install the course, such as on Colab."""
        return f"%pip install -q git+{HOST}{self}"

    def badges(self, lesson: str) -> list[str]:
        """Return Markdown, a line for each home, that opens the lesson with this file name."""
        notebook = f"workbook/{lesson}"
        course = f"{HOST}{self}/actions/workflows/course.yml"
        homes = (
            ("course", f"{course}/badge.svg", course),
            (
                "Open in Codespaces",
                f"{HOST}codespaces/badge.svg",
                f"https://codespaces.new/{self}?quickstart=1",
            ),
            (
                "Open in Binder",
                "https://mybinder.org/badge_logo.svg",
                f"https://mybinder.org/v2/gh/{self}/HEAD?urlpath=lab/tree/{notebook}",
            ),
            (
                "Open in Colab",
                "https://colab.research.google.com/assets/colab-badge.svg",
                f"https://colab.research.google.com/github/{self}/blob/HEAD/notebooks/{lesson}",
            ),
        )
        return [f"[![{words}]({picture})]({target})" for words, picture, target in homes]


def parse(address: str) -> Repository:
    """Return the repository at ``address``: OWNER/NAME, or where a browser or git finds it.

    Raises CourseError when it is none on GitHub.
    """
    match = ADDRESS.fullmatch(address.strip())
    if match is None:
        raise CourseError(
            f"The address is {address!r}; it must be a repository on GitHub, such as OWNER/NAME or "
            f"{HOST}OWNER/NAME."
        )
    return Repository(match["owner"], match["name"])


def noted(project: Project) -> Repository | None:
    """Return the repository that pyproject.toml names as `repository` of `tool.course`, or None.

    Raises CourseError when what stands there is no repository on GitHub.
    """
    table = tomllib.loads((project.root / "pyproject.toml").read_text(encoding="utf-8"))
    address = table.get("tool", {}).get("course", {}).get("repository", "")
    return parse(address) if address else None


def note(project: Project, address: str) -> Repository:
    """Write the address into pyproject.toml and return the repository.

    Raises CourseError, before anything is written, when it is no repository on GitHub or
    pyproject.toml has no place for it.
    """
    repository = parse(address)
    path = project.root / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    wanted, times = NOTED.subn(f'[tool.course]\nrepository = "{repository}"', text)
    if times != 1:
        raise CourseError("pyproject.toml has no [tool.course] that begins with `repository`.")
    path.write_text(wanted, encoding="utf-8")
    return repository


def badges(project: Project) -> str:
    """Return the README's badges. Raises CourseError when no address is noted."""
    repository = noted(project)
    if repository is None:
        raise CourseError(NO_ADDRESS)
    return "\n".join(repository.badges(project.lesson(FIRST_LESSON).path.name))


def write_links(project: Project) -> list[Path]:
    """Bring the README's badges and the lessons' set-up cells in line with the noted address.

    Returns the files that have changed. A lesson keeps its outputs: what its set-up cell says
    where the course is missing has no part in them.

    Raises CourseError when no address is noted, or the README or a lesson cannot be read or lacks
    the place.
    """
    if noted(project) is None:
        raise CourseError(NO_ADDRESS)
    changed = list(_stale(project))
    for path, content in changed:
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            write_notebook(content, path)
    return [path for path, _ in changed]


def link_faults(project: Project) -> list[str]:
    """Return a line for each file that does not follow the noted address.

    What :func:`write_links` would raise is a line too; where no address is noted, none is wrong.
    """
    try:
        if noted(project) is None:
            return []
        return [
            f"{path.name} has not the links of {noted(project)}: run `course links`"
            for path, _ in _stale(project)
        ]
    except CourseError as error:
        return [str(error)]


def set_up_ending(repository: Repository | None) -> str:
    """Return how a set-up cell ends its imports: what it says where the course is missing."""
    if repository is None:
        return AT_HOME
    install = [f'        "{repository.install}"']
    if len(install[0]) > COLUMNS:
        command, plus, address = repository.install.partition("+")
        install = [f'        "{command}{plus}"', f'        "{address}"']
    lines = (
        MISSING,
        "    raise SystemExit(",
        '        f"{missing}. Start with: course open. On Colab, run this first:\\n"',
        *install,
        "    ) from None",
    )
    return "\n".join(lines)


def without_badges(readme: str) -> str:
    """Return the README without the badges under its title, whose pictures come from elsewhere."""
    title, _, rest = readme.partition("\n")
    body = rest.lstrip("\n")
    if present := BADGES.match(body):
        return f"{title}\n\n{body[present.end() :].lstrip()}"
    return readme


def _stale(project: Project) -> Iterator[tuple[Path, str | NotebookNode]]:
    """Yield each file that must change, with what it has to hold."""
    repository = noted(project)
    assert repository is not None
    readme = project.root / "README.md"
    text = readme.read_text(encoding="utf-8")
    wanted = _with_badges(text, badges(project))
    if wanted != text:
        yield readme, wanted
    for lesson in project.lessons():
        notebook = read_notebook(lesson.path)
        if _end_set_up(notebook, set_up_ending(repository), lesson.name):
            yield lesson.path, notebook


def _with_badges(text: str, badges: str) -> str:
    """Return the README with ``badges`` under its title, in the place of those there are."""
    title, _, body = without_badges(text).partition("\n")
    return f"{title}\n\n{badges}\n{body}"


def _end_set_up(notebook: NotebookNode, ending: str, name: str) -> bool:
    """Give the set-up cell its ``ending``; return whether that changed it."""
    for cell in notebook["cells"]:
        if "setup" in cell["metadata"].get("tags", ()) and cell["cell_type"] == "code":
            source = cell["source"]
            cell["source"] = ENDING.sub(lambda _: ending, source, count=1)
            if ending not in cell["source"]:
                break
            return cell["source"] != source
    raise CourseError(f"{name} has no set-up cell whose imports end by `{MISSING}`.")
