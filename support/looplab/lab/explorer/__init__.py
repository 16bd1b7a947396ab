"""The x-ray as a picture that a reader can touch: zoomed, panned, pointed at, read aloud.

It is plain HTML with a script of its own and no network, so that JupyterLab, Notebook, VS Code,
Colab, a static page and a saved file show the same. Where no script runs, the still picture that
was given with it is shown.
"""

from looplab.lab.explorer.data import data_of
from looplab.lab.explorer.markup import explorable, fragment_of, script
from looplab.lab.explorer.saving import MIME, kept, packed, unpacked

__all__ = ["MIME", "data_of", "explorable", "fragment_of", "kept", "packed", "script", "unpacked"]
