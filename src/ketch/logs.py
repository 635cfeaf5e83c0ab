"""What a program started by `run()` logs like, unless it has configured logging itself."""

from __future__ import annotations

import logging


class Formatter(logging.Formatter):
    """`2026/11/23 23:57:23 message`, the level shown from WARNING on."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%Y/%m/%d %H:%M:%S")
        self._loud = logging.Formatter("%(asctime)s %(levelname)s %(message)s", self.datefmt)

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        return self._loud.format(record) if record.levelno >= logging.WARNING else super().format(record)


def configure(level: str) -> None:
    """Log to standard error from `level` on. Does nothing when the program has set logging up."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    root.addHandler(handler)
    root.setLevel(level)
