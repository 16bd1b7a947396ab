"""Where the course lies on disk, and which lessons it has."""

import re
from dataclasses import dataclass
from pathlib import Path

INSTALL = (
    "run `python3 -m pip install -c constraints.txt -e .` in the course's folder, or start with "
    "`python3 -m uv run course open`"
)
LESSON_NAME = re.compile(r"\d\d_[a-z0-9_]+")


class CourseError(Exception):
    """Something that the `course` command cannot do, said in a sentence for who typed it."""


@dataclass(frozen=True, slots=True, order=True)
class Lesson:
    """One notebook of the course; ``name`` is its file's stem, such as ``02_gather``."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.name[:2]


@dataclass(frozen=True, slots=True)
class Project:
    """A checkout of the course; ``root`` is the folder that holds ``notebooks/``."""

    root: Path

    @classmethod
    def here(cls) -> "Project":
        """Return the checkout that this package runs from.

        Raises CourseError when the package was installed without its notebooks.
        """
        root = Path(__file__).resolve().parents[1]
        if not ((root / "notebooks").is_dir() and (root / "pyproject.toml").is_file()):
            raise CourseError(
                f"There is no notebooks folder beside {root / 'support'}: this is no checkout of "
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
        """Return the lessons in their order."""
        found = (Lesson(path) for path in self.notebooks.glob("*.ipynb"))
        return sorted(lesson for lesson in found if LESSON_NAME.fullmatch(lesson.name))

    def lesson(self, wanted: str) -> Lesson:
        """Return the lesson called ``wanted``: its number (``2``, ``02``), name or file.

        Raises CourseError, naming the lessons there are, when none is called so.
        """
        lessons = self.lessons()
        name = re.split(r"[/\\]", wanted.strip())[-1].removesuffix(".ipynb")
        number = name.zfill(2) if name.isascii() and name.isdigit() else None
        for lesson in lessons:
            if name == lesson.name or number == lesson.number:
                return lesson
        if not lessons:
            raise CourseError(f"There is no lesson in {self.notebooks}.")
        names = ", ".join(lesson.name for lesson in lessons)
        raise CourseError(f"There is no lesson {wanted!r}; there are {names}.")

    def selection(self, wanted: list[str]) -> list[Lesson]:
        """Return the lessons called ``wanted``, each once and in order; all when it is empty.

        Raises CourseError when a name is unknown or the course has no lesson.
        """
        if wanted:
            return sorted({self.lesson(name) for name in wanted})
        lessons = self.lessons()
        if not lessons:
            raise CourseError(f"There is no lesson in {self.notebooks}.")
        return lessons
