"""Every public name of the card that the course answers stands in the code of its lesson."""

import ast
import re

import pytest

from support.project import Project
from support.publishing.notebooks import read_notebook

CARD = {
    "02": ("DashboardService", "get_dashboard_data", "_get_user_stats"),
    "03": ("send_notifications_safe", "send_notification_to_user"),
    "04": ("_external_api_semaphore", "call_external_api", "process_batch_with_limit"),
    "05": ("search_with_timeout", "search_multiple_sources"),
    "06": ("process_with_cancellation", "run_with_graceful_shutdown"),
    "07": ("create_engine", "engine", "async_session"),
    "08": ("HTTPClientPool", "get_client", "close", "lifespan"),
    "09": (
        *("DistributedLock", "acquire", "release", "__aenter__", "__aexit__"),
        *("timed_operation", "process_order"),
    ),
    "10": ("TimingMiddleware", "AsyncResourceMiddleware", "dispatch"),
    "11": ("generate_csv_rows", "export_users"),
    "12": (
        *("AsyncEventBus", "subscribe", "unsubscribe", "publish", "event_bus"),
        *("on_user_created", "create_user"),
    ),
}
VERDICTS = ("holds as printed", "holds with care", "broken and mended")
ROW = re.compile(
    r"^\| (?P<names>`.+?) \| \[(?P<lesson>\d\d)\]\([^)]*\) \| (?P<verdict>[^|]+) \|$", re.M
)


def defined_in(course: Project, lesson: str) -> set[str]:
    """Return the names that the lesson's code cells define: classes, functions and variables."""
    notebook = read_notebook(course.lesson(lesson).path)
    found: set[str] = set()
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


@pytest.mark.parametrize("number", CARD)
def test_the_lesson_defines_the_cards_names(course: Project, number: str) -> None:
    assert sorted(set(CARD[number]) - defined_in(course, number)) == []


def test_the_readme_says_of_each_snippet_where_it_is_and_what_the_lesson_found(
    course: Project,
) -> None:
    readme = (course.root / "README.md").read_text(encoding="utf-8")
    told: dict[str, str] = {}
    for row in ROW.finditer(readme):
        assert row["verdict"].partition(":")[0] in VERDICTS, row[0]
        told |= dict.fromkeys(re.findall(r"`(\w+)", row["names"]), row["lesson"])
    missing = [
        name
        for lesson, names in CARD.items()
        for name in names
        if not name.startswith("__") and told.get(name) != lesson
    ]
    assert missing == []
