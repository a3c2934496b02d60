"""What stands for a data set and a radius of a paper: recipes with a common name, and changes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ctbench.recipes import recipe
from ctbench.training import Recipe

ORIGINAL = "_original"  # how the names of recipes with the settings of the methods' own papers end


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What stands for a paper's setting: the recipes `PREFIX_METHOD`, with changes.

    Args:
        label: the name in figures.
        prefix: how the names of the recipes begin.
        changes: changes of these recipes, "path=value" each.
        originals: whether there are recipes `PREFIX_METHOD_original`; otherwise `PREFIX_METHOD` stands for them.
        followed: whether the unstable neurons of networks trained by COAP are counted after each epoch.
    """

    label: str
    prefix: str
    changes: tuple[str, ...] = ()
    originals: bool = False
    followed: bool = False

    def recipe(self, method: str, changes: tuple[str, ...] = ()) -> Recipe:
        """The recipe of a method, e.g. "taps" or "taps_original", with more changes after those of the setting."""
        name = f"{self.prefix}_{method if self.originals else method.removesuffix(ORIGINAL)}"
        return _changed(name, self.changes, changes)


@cache
def _changed(name: str, *several: tuple[str, ...]) -> Recipe:
    """A recipe with changes, one group after the other. Tables ask for the same ones thousands of times."""
    changed = recipe(name)
    for changes in several:
        changed = changed.with_changes(list(changes))
    return changed
