"""A build hook: an editable installation, as a checkout has it, brings settings for the notebooks.

A wheel does not: it is installed beside an app, whose IPython and JupyterLab are its own affair.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import (  # ty: ignore[import-not-found]
    BuildHookInterface,
)

SETTINGS = {
    "support/looplab/kernel_config/ipython_kernel_config.py": (
        "etc/ipython/ipython_kernel_config.py"
    ),
    # JupyterLab does not ask a newcomer about news
    "support/looplab/jupyter_config/default_setting_overrides.json": (
        "etc/jupyter/labconfig/default_setting_overrides.json"
    ),
}


class CheckoutSettings(BuildHookInterface):
    """Adds the settings to the environment that the course is installed into from its folder."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files to install, where the build is an editable one."""
        if version == "editable":
            build_data["shared_data"].update(SETTINGS)
