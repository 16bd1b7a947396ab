"""The reading site: the lessons as they were saved, as static pages that ask before they tell.

A page asks for the predictions and keeps the measurements covered until then, its dials move
through results that `course refresh` kept, and its x-rays can be explored where their recordings
were saved. Without JavaScript, and on paper, everything is there to read.
"""

from looplab.publishing.site.build import MARK, build_site

__all__ = ["MARK", "build_site"]
