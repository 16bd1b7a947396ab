# Installed into etc/ipython of the environment (see pyproject.toml): every kernel there knows the
# course from its first cell on, so that a cell run before the set-up cell gets one sentence.
c = get_config()  # noqa: F821  # ty: ignore[unresolved-reference]
c.InteractiveShellApp.extensions = ["looplab.kernel"]
