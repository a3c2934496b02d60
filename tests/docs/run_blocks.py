"""Run the Python blocks of a page in their order, in one namespace: python run_blocks.py PAGE."""

import sys
from pathlib import Path


def blocks(text: str) -> list[tuple[int, str]]:
    """The blocks that begin with ```python: the number of lines before the code, and the code."""
    pairs, lines = list[tuple[int, str]](), text.splitlines()
    starts = [number for number, line in enumerate(lines) if line == "```python"]
    for start in starts:
        end = lines.index("```", start)
        pairs.append((start + 1, "\n".join(lines[start + 1 : end])))
    return pairs


def main(page: Path) -> None:
    namespace = {"__name__": "__main__"}
    for before, code in blocks(page.read_text()):
        # empty lines come first, so that a traceback names the line of the page
        exec(compile("\n" * before + code, str(page), "exec"), namespace)
        print(f"{page.name}:{before}: ran")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
