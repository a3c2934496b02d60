"""The times of a recipe, in epochs: where its ramps and averages begin and end, and where its learning rate falls.

They are stretched with the run: a recipe of 12 epochs whose radius grows for 6 grows it for 15 of 30 epochs. They can
also be given as shares of the run, such as "50%".
"""

from __future__ import annotations

import copy
import re
from typing import Any

SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def stretched(content: dict[str, Any], epochs: int) -> dict[str, Any]:
    """The JSON of a recipe with another number of epochs, and all its times in proportion."""
    changed, before = copy.deepcopy(content), content["epochs"]
    changed["epochs"] = epochs
    for part in (changed["ramp"], changed["swa"], *(each["ramp"] for each in changed["schedules"])):
        if part is not None:
            part |= {name: part[name] * epochs / before for name in ("start", "end") if name in part}
    milestones = changed["optimizer"]["milestones"]
    # rounding may give two milestones one epoch: then the learning rate falls twice, in two epochs
    ascending = list[int]()
    for milestone in milestones:
        ascending.append(max(round(milestone * epochs / before), ascending[-1] + 1 if ascending else 1))
    changed["optimizer"]["milestones"] = ascending
    return changed


def in_epochs(path: str, text: str, epochs: int) -> str:
    """The text of a change, with shares of the run as epochs: "50%" of 30 epochs is "15.0", a milestone "15".

    Args:
        path: the changed field.
        text: its new value.
        epochs: the length of the run.
    """
    if path == "optimizer.milestones":
        return SHARE.sub(lambda match: str(round(float(match[1]) / 100 * epochs)), text).replace('"', "")
    if path.rpartition(".")[2] in ("start", "end") and (match := SHARE.fullmatch(text)):
        return str(float(match[1]) / 100 * epochs)
    return text
