"""JupyterLab in headless chromium, on copies of the lessons.

Playwright's own loop stays in the main thread while it is open, and no asyncio test could run
beside it: so it opens and closes with each file of this folder, and no plugin keeps it. The server
of JupyterLab is a process of its own, which all files share.
"""

import json
import secrets
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import nbformat
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SAVED = "saved"
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
)
SETTINGS = {
    # cells out of sight are drawn too
    "notebook-extension/tracker": {"windowingMode": "none"},
    # each test finds the lessons as they were at first
    "docmanager-extension/plugin": {"autosave": False},
}
PACE = "0.5"  # half of each wait: quicker, and claims must hold there too


OPEN = """async (path) => {
    const { commands, shell } = window.jupyterapp;
    const notebook = await commands.execute('docmanager:open', { path });
    await notebook.revealed;
    shell.activateById(notebook.id);
    await notebook.sessionContext.ready;
    await notebook.sessionContext.session.kernel.info;
}"""
# With a kernel that runs already, whichever it is: nothing is run, and a new one takes seconds.
OPEN_TO_READ = """async (path) => {
    const { commands, serviceManager, shell } = window.jupyterapp;
    await serviceManager.kernels.refreshRunning();
    const [running] = serviceManager.kernels.running();
    const { id, name } = running ?? await serviceManager.kernels.startNew({ name: 'python3' });
    const notebook = await commands.execute('docmanager:open', { path, kernel: { id, name } });
    await notebook.revealed;
    shell.activateById(notebook.id);
    await notebook.sessionContext.ready;
}"""
# Without asking whether to save.
CLOSE_ALL = """async () => {
    for (const widget of [...window.jupyterapp.shell.widgets('main')]) widget.dispose();
}"""
SHUT_DOWN_ALL = "window.jupyterapp.serviceManager.sessions.shutdownAll()"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Generator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(
    serving: Callable[..., AbstractContextManager[None]],
    free_tcp_port_factory: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[str]:
    """A JupyterLab on the lessons without their outputs; the address of its pages by ``path``.

    The lessons as they are saved stand in its folder ``saved``.
    """
    folder = tmp_path_factory.mktemp("lessons")
    (folder / SAVED).mkdir()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        shutil.copy(path, folder / SAVED)
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / path.name)
    settings = tmp_path_factory.mktemp("jupyter")
    for plugin, chosen in SETTINGS.items():
        kept = settings / "user" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        kept.parent.mkdir(parents=True)
        kept.write_text(json.dumps(chosen))
    port = free_tcp_port_factory()
    token = secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    environment = {
        "JUPYTER_CONFIG_DIR": str(settings),
        "JUPYTERLAB_SETTINGS_DIR": str(settings / "user"),
        "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces"),
        "COURSE_PACE": PACE,
    }

    def answers() -> bool:
        try:
            httpx.get(f"http://127.0.0.1:{port}/api", trust_env=False)
        except httpx.TransportError:
            return False
        return True

    with serving(command, settings / "lab.log", answers, **environment):
        yield f"http://127.0.0.1:{port}/{{path}}?reset&token={token}"


@pytest.fixture(scope="module")
def lab_page(browser: Browser, lab: str) -> Generator[Page]:
    """A page with JupyterLab, which takes seconds to load, and no lesson open."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(lab.format(path="lab"))
    page.wait_for_function("window.jupyterapp !== undefined", timeout=60_000)
    page.evaluate("window.jupyterapp.restored")
    yield page
    page.close()


@pytest.fixture
def open_lesson(lab_page: Page) -> Generator[Callable[[str], Page]]:
    """Open a lesson by its file name and wait until its kernel answers."""

    def open_page(name: str) -> Page:
        lab_page.evaluate(OPEN, name)
        return lab_page

    yield open_page
    lab_page.evaluate(CLOSE_ALL)
    lab_page.evaluate(SHUT_DOWN_ALL)


@pytest.fixture
def open_to_read(lab_page: Page) -> Generator[Callable[[str], Page]]:
    """Open a lesson by its file name, as it is saved; none of its cells is to be run."""

    def open_page(name: str) -> Page:
        lab_page.evaluate(OPEN_TO_READ, f"{SAVED}/{name}")
        return lab_page

    yield open_page
    lab_page.evaluate(CLOSE_ALL)


@pytest.fixture
def open_slides(browser: Browser, lab: str) -> Generator[Callable[[str], Page]]:
    """Open a lesson as a slide show, on a projector's 1280x720, and wait for its first slide."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})

    def open_page(name: str) -> Page:
        page.goto(lab.format(path=f"rise/{name}"))
        page.wait_for_selector(".reveal .slides section.present .jp-Cell", timeout=60_000)
        page.wait_for_function("document.querySelectorAll('.reveal .cm-content').length > 0")
        return page

    yield open_page
    page.close()
