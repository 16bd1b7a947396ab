"""The site's sources and Sphinx's run over them.

MyST-NB reads the saved outputs and executes nothing; nothing is fetched while the site is built,
and its pages ask no other host for anything.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from looplab.project import CourseError, Lesson, Project
from looplab.publishing.draft import Draft
from looplab.publishing.links import without_badges
from looplab.publishing.notebooks import read_notebook, write_notebook
from looplab.publishing.saved import saved_faults

TITLE = "Async patterns for FastAPI"
LEAD_ENDS = "## Ways in"
SYMPTOMS = "symptoms"
MARK = ".course-site"
SETTINGS: dict[str, Any] = {
    "project": TITLE,
    "author": "",
    "html_title": TITLE,
    "extensions": ["myst_nb"],
    "html_theme": "sphinx_book_theme",
    "html_static_path": ["_static"],
    "html_css_files": ["course.css"],
    # no ES modules: a browser refuses them on a page that was opened from a file
    "html_js_files": [
        ("predictions.js", {"defer": "defer"}),
        ("dials.js", {"defer": "defer"}),
        ("explorer.js", {"defer": "defer"}),
    ],
    "html_context": {"default_mode": "auto"},
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_copyright": False,
    "html_show_sphinx": False,
    "html_last_updated_fmt": None,
    "myst_heading_anchors": 3,
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_code_prompt_show": "Show the code of this cell",
    "nb_code_prompt_hide": "Hide the code of this cell",
    "html_theme_options": {
        "show_navbar_depth": 1,
        "show_toc_level": 2,
        "use_download_button": False,
        "use_fullscreen_button": False,
        "home_page_in_toc": True,
        "navbar_persistent": [],
    },
}
STATIC = Path(__file__).with_name("static")
TOGGLE = ' aria-label="Toggle hidden content"'
"""What MyST-NB calls every fold, whatever the fold itself says."""


def build_site(project: Project, target: Path) -> str:
    """Build the site into the folder ``target``, which is replaced, and return a line about it.

    Raises CourseError when a lesson's saved outputs are stale or faulty, when ``target`` holds
    something that is no site of the course, and when a link leads nowhere.
    """
    lessons = project.selection([])
    _require_sound(lessons)
    _require_ours(project, target)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _write_sources(project, lessons, work / "source")
        _run_sphinx(work / "source", work / "site", work / "doctrees")
        _let_folds_say_what_they_hold(work / "site")
        (work / "site" / MARK).write_text("Made by `course site`; it is replaced as a whole.\n")
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(work / "site", target)
    return f"{len(lessons)} lessons are in {target}; open {target / 'index.html'}."


def _require_sound(lessons: list[Lesson]) -> None:
    faults = [
        f"{lesson.name}: {fault}" for lesson in lessons for fault in saved_faults(lesson.path)
    ]
    if faults:
        stale = sorted({fault.partition(":")[0] for fault in faults})
        raise CourseError(
            "\n".join([*faults, f"Fix them first with `course refresh {' '.join(stale)}`."])
        )


def _require_ours(project: Project, target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise CourseError(f"output is {target}; it must be a folder, and it is a file.")
    if target.is_dir() and any(target.iterdir()) and not (target / MARK).exists():
        raise CourseError(
            f"output is {target}; it must be a new folder, an empty one or an earlier site, and it "
            "holds other files."
        )
    if project.root.is_relative_to(target.resolve()):
        raise CourseError(f"output is {target}; it must not hold the course itself.")


def _write_sources(project: Project, lessons: list[Lesson], source: Path) -> None:
    # imports the lab, which other verbs do without
    from looplab.lab.explorer import script
    from looplab.publishing.site.page import page_of

    source.mkdir()
    shutil.copytree(STATIC, source / "_static")
    (source / "_static" / "explorer.js").write_text(script(), encoding="utf-8")
    drafts = [Draft(lesson, read_notebook(lesson.path)) for lesson in lessons]
    readme = without_badges((project.root / "README.md").read_text(encoding="utf-8"))
    (source / "index.md").write_text(_index(readme, drafts), encoding="utf-8")
    (source / f"{SYMPTOMS}.md").write_text(_symptoms(drafts[0]), encoding="utf-8")
    for draft in drafts:
        write_notebook(page_of(draft.lesson), source / draft.lesson.path.name)
    for picture in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", readme):
        if "://" not in picture:
            (source / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(project.root / picture, source / picture)


def _index(readme: str, drafts: list[Draft]) -> str:
    lead = readme.partition(LEAD_ENDS)[0].replace("](notebooks/", "](")
    names = "\n".join([*map(_entry, drafts), SYMPTOMS])
    return f"{lead}\n```{{toctree}}\n:hidden:\n:caption: Lessons\n\n{names}\n```\n"


def _entry(draft: Draft) -> str:
    """Return the lesson's line in the table of contents: its number, its title and its file."""
    return f"{draft.lesson.number} · {draft.title} <{draft.lesson.name}>"


def _symptoms(first: Draft) -> str:
    source = next((cell["source"] for cell in first.cells if cell["id"] == SYMPTOMS), None)
    if source is None:
        raise CourseError(
            f"{first.lesson.name} has no cell {SYMPTOMS!r}, which the site's index is made of."
        )
    return re.sub(r"^## ", "# ", source, count=1) + "\n"


def _run_sphinx(source: Path, site: Path, doctrees: Path) -> None:
    """Build the pages in a process of their own: Sphinx changes docutils for a whole process."""
    for package in ("myst_nb", "sphinx_book_theme"):
        if importlib.util.find_spec(package) is None:
            raise CourseError(
                f"The package {package} is not installed: it comes with the development group, "
                "`uv sync`."
            )
    settings = [f"{name} = {value!r}\n" for name, value in SETTINGS.items()]
    (source / "conf.py").write_text("".join(settings), encoding="utf-8")
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-E", "-d", str(doctrees)]
    run = subprocess.run(
        [*sphinx, str(source), str(site)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"},
        check=False,
    )
    told = _told(run.stderr, source)
    if run.returncode or told:
        raise CourseError(f"The site is not whole:\n{told}")


def _let_folds_say_what_they_hold(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(TOGGLE, ""), encoding="utf-8")


def _told(warnings: str, source: Path) -> str:
    """Return Sphinx's warnings, one a line, without colours and without this run's folder."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", warnings).replace(f"{source}{os.sep}", "")
    return "\n".join(line for line in plain.splitlines() if line.strip())
