"""Where the course lies on disk, and which lessons it has."""

import re
from dataclasses import dataclass
from pathlib import Path

INSTALL = (
    'run `python3 -m pip install -c constraints.txt -e ".[lessons]"` in the course\'s folder, '
    "or start with `python3 -m uv run course open`"
)
LESSON_NAME = re.compile(r"\d\d_[a-z0-9_]+")
DEEPER = "_deeper"


class CourseError(Exception):
    """Something that the `course` command cannot do, said in a sentence for who typed it."""


@dataclass(frozen=True, slots=True, order=True)
class Lesson:
    """One notebook of the course; ``name`` is its file's stem, such as ``02_gather``.

    Most lessons have a second helping, which has the same number: ``02_gather_deeper``.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def deeper(self) -> bool:
        """Whether this is the second helping of the lesson with its number."""
        return self.name.endswith(DEEPER)

    @property
    def other_helping(self) -> "Lesson":
        """The second helping of a lesson, and of a second helping its lesson; it may not exist."""
        name = self.name.removesuffix(DEEPER) if self.deeper else self.name + DEEPER
        return Lesson(self.path.with_name(f"{name}.ipynb"))


@dataclass(frozen=True, slots=True)
class Project:
    """A checkout of the course; ``root`` is the folder that holds ``notebooks/``."""

    root: Path

    @classmethod
    def here(cls) -> "Project":
        """Return the checkout that this package runs from.

        Raises CourseError when the package was installed without its notebooks.
        """
        root = Path(__file__).resolve().parents[2]
        if not ((root / "notebooks").is_dir() and (root / "pyproject.toml").is_file()):
            raise CourseError(
                f"There is no notebooks folder in {root}: this is no checkout of "
                f"the course. In one, {INSTALL}."
            )
        return cls(root)

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def workbook(self) -> Path:
        return self.root / "workbook"

    def lessons(self) -> list[Lesson]:
        """Return the lessons in their order, each before its second helping."""
        found = (Lesson(path) for path in self.notebooks.glob("*.ipynb"))
        return sorted(lesson for lesson in found if LESSON_NAME.fullmatch(lesson.name))

    def lesson(self, wanted: str) -> Lesson:
        """Return the lesson called ``wanted``: its number (``2``, ``02``), name or file.

        A number with ``_deeper`` (``2_deeper``) is the second helping.

        Raises CourseError, naming the lessons there are, when none is called so.
        """
        lessons = self.lessons()
        name = re.split(r"[/\\]", wanted.strip())[-1].removesuffix(".ipynb")
        digits = name.removesuffix(DEEPER)
        number = digits.zfill(2) if digits.isascii() and digits.isdigit() else None
        for lesson in lessons:
            if name == lesson.name or (number, name.endswith(DEEPER)) == (
                lesson.number,
                lesson.deeper,
            ):
                return lesson
        if not lessons:
            raise CourseError(f"There is no lesson in {self.notebooks}.")
        names = ", ".join(lesson.name for lesson in lessons if not lesson.deeper)
        raise CourseError(f"There is no lesson {wanted!r}; there are {names}.")

    def selection(self, wanted: list[str]) -> list[Lesson]:
        """Return the lessons called ``wanted``, each once and in order; all when it is empty.

        A number stands for the lesson and its second helping.

        Raises CourseError when a name is unknown or the course has no lesson.
        """
        lessons = self.lessons()
        if not lessons:
            raise CourseError(f"There is no lesson in {self.notebooks}.")
        if not wanted:
            return lessons
        chosen = {self.lesson(name) for name in wanted}
        also = {self.lesson(name).other_helping for name in wanted if name.strip().isdigit()}
        return [lesson for lesson in lessons if lesson in chosen or lesson in also]
