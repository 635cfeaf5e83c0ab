"""protoc's .pyi files, made to pass `mypy --strict`: a message field also takes a mapping, which they leave untyped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_BARE_MAPPING = re.compile(rb"\b_Mapping(?=[\],])")


def complete_stubs(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files, with the type arguments that the stubs among them lack."""
    return {
        name: _BARE_MAPPING.sub(b"_Mapping[str, object]", content) if name.endswith(".pyi") else content
        for name, content in files.items()
    }
