"""The house rules for a lesson: what stands where, how long, under which names.

Each function in `RULES` yields a line for each thing that breaks one of them. Rules on the order of
a lesson stand in `outline`, those on cells and what they show in `cells`, those on prose in
`wording`, those on a slide show in `slides`.
"""

from looplab.publishing.draft import Draft
from looplab.publishing.rules import cells, outline, slides, wording
from looplab.publishing.rules.rule import Rule

RULES: tuple[Rule, ...] = (*outline.RULES, *cells.RULES, *slides.RULES, *wording.RULES)


def structure_faults(draft: Draft) -> list[str]:
    """Return every house rule that ``draft`` breaks, a line each."""
    return [fault for rule in RULES for fault in rule(draft)]
