"""What leads to the lessons: the README's tables and lesson 00's, made from `lessons.toml`.

Each fact is kept once: titles and minutes in the lessons, the rest in that file.
"""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from looplab.project import DEEPER, CourseError, Lesson, Project
from looplab.publishing.draft import Draft, exercise_minutes, minutes
from looplab.publishing.notebooks import read_notebook, write_notebook

FILE = Path("support/looplab/lessons.toml")
FIRST = "00"
SUM = "Sum"
VERDICTS = ("holds as printed", "holds with care", "broken and fixed")
KEYS = {
    "name": str,
    "see": str,
    "learn": str,
    "deeper": str,
    "symptoms": list,
    "deeper_symptoms": list,
    "syllabi": dict,
}
OPTIONAL = {"deeper", "symptoms", "deeper_symptoms", "syllabi"}
CARD_KEYS = {"names": str, "lesson": str, "found": str}


@dataclass(frozen=True, slots=True)
class Entry:
    """What the table says of one lesson; ``syllabi`` are minutes by the way's name.

    ``deeper`` is what its second helping holds, empty where it has none.
    """

    name: str
    see: str
    learn: str
    deeper: str = ""
    symptoms: tuple[str, ...] = ()
    deeper_symptoms: tuple[str, ...] = ()
    syllabi: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A row of the card: its public names, the lesson, and what that found.

    ``lesson`` is a number, such as 04, or that of a second helping: 04_deeper.
    """

    names: str
    lesson: str
    found: str


@dataclass(frozen=True, slots=True)
class Syllabus:
    """One way through the course: ``minutes`` by the lesson's number, and their ``total``."""

    name: str
    minutes: dict[str, int]

    @property
    def total(self) -> int:
        """The minutes of all its lessons."""
        return sum(self.minutes.values())


@dataclass(frozen=True, slots=True)
class Index:
    """The whole table."""

    ways: tuple[str, ...]
    entries: tuple[Entry, ...]
    card: tuple[Snippet, ...]

    @property
    def syllabi(self) -> list[Syllabus]:
        """The ways through the course, in the table's order."""
        return [
            Syllabus(way, {e.name[:2]: e.syllabi[way] for e in self.entries if way in e.syllabi})
            for way in self.ways
        ]


def read_index(project: Project) -> Index:
    """Return the table.

    Raises CourseError, saying where and what is allowed, when the file is missing or no TOML, when
    a key is unknown, missing or of another type, or when its lessons are not those of the course.
    """
    try:
        table = tomllib.loads(_text_of(project, FILE))
    except tomllib.TOMLDecodeError as error:
        raise CourseError(f"{FILE} is not TOML: {error}.") from None
    ways = tuple(table.get("syllabi", ()))
    entries = tuple(_entry(row, ways) for row in table.get("lesson", ()))
    named = [entry.name for entry in entries]
    there = [lesson.name for lesson in project.lessons() if not lesson.deeper]
    if named != there:
        raise CourseError(
            f"{FILE} names the lessons {', '.join(named)}; notebooks/ has {', '.join(there)}."
        )
    for entry in entries:
        if bool(entry.deeper) != project.lesson(entry.name).other_helping.path.exists():
            raise CourseError(
                f"{FILE}: lesson {entry.name} must have 'deeper' if there is a notebook "
                f"{entry.name}{DEEPER}.ipynb, and only then."
            )
    card = tuple(_snippet(row, project) for row in table.get("card", ()))
    return Index(ways, entries, card)


def _text_of(project: Project, file: Path) -> str:
    try:
        return (project.root / file).read_text(encoding="utf-8")
    except OSError as error:
        raise CourseError(f"{file.as_posix()} cannot be read: {error.strerror or error}.") from None


def _checked(row: dict[str, Any], keys: Mapping[str, type], optional: set[str], whose: str) -> None:
    if unknown := sorted(row.keys() - keys.keys()):
        raise CourseError(f"{FILE}: {whose} has {unknown[0]!r}; known keys are {', '.join(keys)}.")
    for key, kind in keys.items():
        if key not in row and key not in optional:
            raise CourseError(f"{FILE}: {whose} lacks {key!r}.")
        if key in row and not isinstance(row[key], kind):
            raise CourseError(
                f"{FILE}: {key} of {whose} is {row[key]!r}; it must be a {kind.__name__}."
            )


def _entry(row: dict[str, Any], ways: tuple[str, ...]) -> Entry:
    whose = f"lesson {row.get('name', '?')}"
    _checked(row, KEYS, OPTIONAL, whose)
    for way, spent in row.get("syllabi", {}).items():
        if way not in ways or not isinstance(spent, int) or spent <= 0:
            raise CourseError(
                f"{FILE}: syllabi of {whose} has {way!r} = {spent!r}; it must be whole minutes of "
                f"one of {', '.join(ways)}."
            )
    return Entry(
        row["name"],
        row["see"],
        row["learn"],
        row.get("deeper", ""),
        tuple(row.get("symptoms", ())),
        tuple(row.get("deeper_symptoms", ())),
        row.get("syllabi", {}),
    )


def _snippet(row: dict[str, Any], project: Project) -> Snippet:
    whose = f"card row {row.get('names', '?')}"
    _checked(row, CARD_KEYS, set(), whose)
    try:
        project.lesson(row["lesson"])
    except CourseError:
        raise CourseError(f"{FILE}: {whose} has lesson {row['lesson']!r}; there is none.") from None
    if row["found"].partition(":")[0] not in VERDICTS:
        raise CourseError(
            f"{FILE}: {whose} was found {row['found']!r}; it must begin with one of "
            f"{', '.join(VERDICTS)}."
        )
    return Snippet(**row)


def write_index(project: Project) -> list[Path]:
    """Write the tables into the README and lesson 00; return the files that have changed.

    Nothing is written unless all of it can be. Raises CourseError as :func:`read_index` does, and
    when a heading or its table is missing.
    """
    stale = list(_stale(project))
    for _, write in stale:
        write()
    return [path for path, _ in stale]


def index_faults(project: Project) -> list[str]:
    """Return a line for each file whose tables are not what `support/looplab/lessons.toml` says.

    What :func:`write_index` would raise is a line too.
    """
    source = FILE.as_posix()
    try:
        return [
            f"{path.name} does not say what {source} does: run `course index`"
            for path, _ in _stale(project)
        ]
    except CourseError as error:
        return [str(error)]


def _stale(project: Project) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Yield each file whose tables are others than they should be, and what writes it anew."""
    readme = project.root / "README.md"
    text = wanted = _text_of(project, Path(readme.name))
    index, drafts = read_index(project), _drafts(project)
    for title, table in (
        ("## Lessons", _lesson_table(index, drafts)),
        ("## The card, snippet by snippet", _card_table(index, project)),
    ):
        wanted = _with_table(wanted, title, table, readme.name)
    if wanted != text:
        yield readme, partial(readme.write_text, wanted, encoding="utf-8")
    first = drafts[project.lesson(FIRST).name]
    tables = {
        "## Map of the course": _map_table(index, drafts),
        "## From symptom to lesson": _symptom_table(index, drafts),
        "## Syllabi": syllabi_table(index, drafts),
    }
    if _fill_cells(first.cells, tables):
        path = first.lesson.path
        yield path, partial(write_notebook, first.notebook, path)


def _fill_cells(cells: list[Any], tables: dict[str, list[str]]) -> bool:
    """Put each table under its heading; return whether that changed anything."""
    changed = False
    for title, table in tables.items():
        cell = next((one for one in cells if one["source"].startswith(title)), None)
        if cell is None:
            raise CourseError(f"lesson {FIRST} has no cell that begins with {title!r}.")
        wanted = _with_table(cell["source"], title, table, f"lesson {FIRST}")
        changed = changed or wanted != cell["source"]
        cell["source"] = wanted
    return changed


def _with_table(text: str, heading: str, table: list[str], where: str) -> str:
    """Return ``text`` with ``table`` instead of the first one under ``heading``."""
    lines = text.split("\n")
    try:
        start = lines.index(heading) + 1
        while not lines[start].startswith("|"):
            start += 1
    except (ValueError, IndexError):
        raise CourseError(f"{where} has no table under {heading!r}.") from None
    end = start
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    return "\n".join([*lines[:start], *table, *lines[end:]])


def _drafts(project: Project) -> dict[str, Draft]:
    return {lesson.name: Draft(lesson, read_notebook(lesson.path)) for lesson in project.lessons()}


def heading(draft: Draft) -> str:
    """Return a lesson's number and title, as every list of lessons names it."""
    return f"{draft.lesson.number} · {draft.title}"


def _name(draft: Draft) -> str:
    """Return a lesson's number and title without what follows a colon."""
    return heading(draft).partition(":")[0]


def _row(columns: Iterable[object]) -> str:
    cells = (str(column) for column in columns)
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def duration(draft: Draft) -> str:
    """Return a lesson's minutes, with those of its exercise where they come on top: 25 + 15."""
    return " + ".join(str(m) for m in (minutes(draft), exercise_minutes(draft)) if m is not None)


def _link(name: str, target: Lesson, folder: str = "") -> str:
    return f"[{name}]({folder}{target.path.name})"


def _lesson_table(index: Index, drafts: dict[str, Draft]) -> list[str]:
    rows = []
    for one in index.entries:
        draft = drafts[one.name]
        deeper = _link("deeper", draft.lesson.other_helping, "notebooks/") if one.deeper else ""
        name = _link(heading(draft), draft.lesson, "notebooks/")
        rows.append(_row((name, one.see, duration(draft), deeper)))
    return ["| Lesson | You see | Minutes | Second helping |", "|---|---|---:|---|", *rows]


def _card_table(index: Index, project: Project) -> list[str]:
    rows = []
    for row in index.card:
        lesson = project.lesson(row.lesson)
        name = f"{lesson.number}, deeper" if lesson.deeper else lesson.number
        rows.append(_row((row.names, _link(name, lesson, "notebooks/"), row.found)))
    return ["| Snippet of the card | Lesson | What the lesson found |", "|---|---|---|", *rows]


def _map_table(index: Index, drafts: dict[str, Draft]) -> list[str]:
    rows = []
    for one in index.entries:
        draft = drafts[one.name]
        name = _name(draft)
        if draft.lesson.number != FIRST:  # lesson 00 does not link to itself
            name = _link(name, draft.lesson)
        deeper = _link(one.deeper, draft.lesson.other_helping) if one.deeper else ""
        rows.append(_row((name, one.learn, deeper, duration(draft))))
    return ["| Lesson | What you learn | Second helping | Minutes |", "|---|---|---|---:|", *rows]


def _symptom_table(index: Index, drafts: dict[str, Draft]) -> list[str]:
    rows = []
    for one in index.entries:
        draft = drafts[one.name]
        for symptom in one.symptoms:
            rows.append(_row((symptom, _link(_name(draft), draft.lesson))))
        for symptom in one.deeper_symptoms:
            name = f"{_name(draft)}, deeper"
            rows.append(_row((symptom, _link(name, draft.lesson.other_helping))))
    return ["| What you notice | Where to look |", "|---|---|", *rows]


def syllabi_table(index: Index, drafts: dict[str, Draft]) -> list[str]:
    """Return the lines of the table of the ways through the course, their sums last."""
    ways = index.syllabi
    rows = [
        _row((_name(drafts[one.name]), *(one.syllabi.get(way.name, "") for way in ways)))
        for one in index.entries
        if one.syllabi
    ]
    return [
        _row(("Lesson", *(way.name for way in ways))),
        "|---|" + "---:|" * len(ways),
        *rows,
        _row((SUM, *(way.total for way in ways))),
    ]


def add_lesson(project: Project, lesson: Lesson, *, see: str, learn: str) -> None:
    """Add the row of a new lesson to the table, behind those there are."""
    path = project.root / FILE
    lines = path.read_text(encoding="utf-8").split("\n")
    place = lines.index("[[card]]") if "[[card]]" in lines else len(lines)
    while place > 0 and (lines[place - 1].startswith("#") or not lines[place - 1]):
        place -= 1
    row = ["", "[[lesson]]", f'name = "{lesson.name}"', f'see = "{see}"', f'learn = "{learn}"']
    path.write_text("\n".join([*lines[:place], *row, *lines[place:]]), encoding="utf-8")
