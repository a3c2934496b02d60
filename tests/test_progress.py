"""Progress bars: the count and the time left stay, and the text is cut."""

from io import StringIO

import pytest
from rich.console import Console

from ctbench import progress
from ctbench.progress import progress_bars

TEXT = "validation natural 0.7517  validation robust 0.6933  loss 2.231  natural 0.7672  eps 0.1  seconds 12.5"


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_count_and_the_time_left_stay_at_every_width(width, monkeypatch):
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    with progress_bars() as bars:
        bars.add_task("cifar10_2_mtl_ibp", total=160, completed=123, text=TEXT)
        bars.refresh()
    line = next(line for line in file.getvalue().splitlines() if "123/160" in line)
    assert "-:--:--" in line
    assert "validation natural 0.7" in line
    assert ("seconds 12.5" in line) == (width == 160)
