"""The README and the pages of the manual as the tests read them: blocks between marks, sections, tables, code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MANUAL = ROOT / "rotator" / "manual"
PAGES = tuple(sorted(MANUAL.glob("*.md")))


def page(name: str) -> str:
    """The text of one page of the manual."""
    return (MANUAL / f"{name}.md").read_text()


def between(text: str, mark: str) -> str:
    """The text between two marks."""
    return text.partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- /{mark} -->")[0]


def section(text: str, heading: str) -> str:
    """The text under a heading of the second rank."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table, without headings."""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        is_heading = number + 1 < len(lines) and re.fullmatch(r"\|(:?-+:?\|)+", lines[number + 1])
        if line.startswith("|") and not is_heading and not re.fullmatch(r"\|(:?-+:?\|)+", line):
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def words(text: str) -> list[str]:
    """The words that the rows of every table explain: what their first cells show as code."""
    return [word for cells in rows(text) for word in re.findall(r"`([^`]+)`", cells[0])]


def shell(text: str) -> str:
    """All that is shown to be typed."""
    return "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
