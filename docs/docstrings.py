"""For mkdocstrings: this project's docstrings as Markdown. `name: text` starts the line of a parameter."""

import re
from typing import Any

import griffe

_ITEM = re.compile(r"^(`*[\w`*]+(?:, [\w`*]+)*): (.*)$")


class Parameters(griffe.Extension):
    """Turns runs of such lines, with what is indented below them, into items."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring and not getattr(obj.docstring, "as_lists", False):
            obj.docstring.value = as_lists(obj.docstring.value)
            obj.docstring.as_lists = True


def as_lists(text: str) -> str:
    lines: list[str] = []
    is_item = False
    for line in text.splitlines():
        found = _ITEM.match(line)
        if found and not found[1][0].isupper():
            if not is_item and lines and lines[-1]:
                lines.append("")
            names = ", ".join(f"`{name.strip('`')}`" for name in found[1].split(", "))
            line, is_item = f"- {names}: {found[2]}", True
        elif is_item and line and not line.startswith(" "):
            lines.append("")
            is_item = False
        lines.append(line)
    return "\n".join(lines)
