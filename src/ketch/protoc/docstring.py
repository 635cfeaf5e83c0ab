"""From a .proto file's comments to docstrings."""

from __future__ import annotations

import re


def docstring(comment: str, otherwise: str, indent: int, *, deprecated: bool = False) -> list[str]:
    """Return the lines of a docstring that says what the comment says, or else `otherwise`; indented."""
    lines = [line.removeprefix(" ").rstrip() for line in comment.strip("\r\n").splitlines()]
    text = "\n".join(lines).strip() or otherwise
    if deprecated:
        text += "\n\nDeprecated."
    lines = _escaped(text).split("\n")
    margin = " " * indent
    if len(lines) == 1:
        return [f'{margin}"""{lines[0]}"""']
    return [f'{margin}"""{lines[0]}', *[(margin + line).rstrip() for line in lines[1:]], f'{margin}"""']


def _escaped(text: str) -> str:
    """Return what a triple-quoted string literal may hold: no backslash, closing quotes or control character alone."""
    text = re.sub(r'"(?="|\Z)', r'\\"', text.replace("\\", "\\\\"))
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", text)
