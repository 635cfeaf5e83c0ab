"""moto: SNS and SQS, from the wheel `moto[server]`. It keeps everything in memory: a restart finds it empty."""

from __future__ import annotations

import math
import sys
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .process import Server, free_port, listens, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# moto counts a queue three times for each message that it takes or gives, which makes thousands take minutes; sees
# within a second only that what was hidden can be seen again; and lets two threads find the same message visible before
# one hides it, unless threads change only where they wait.
_MOTO = """
import os, sys

os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = sys.argv.pop(1)  # read at import

from moto.sqs.models import Queue
from moto.server import main

for count in ("", "_delayed", "_not_visible"):
    setattr(Queue, f"approximate_number_of_messages{count}", 0)
sys.setswitchinterval(10)
wait = Queue.wait_for_messages
Queue.wait_for_messages = lambda self, timeout: wait(self, min(timeout, 0.2))
main(sys.argv[1:])
"""

_HELLO = b"GET /moto-api/data.json HTTP/1.0\r\n\r\n"


@asynccontextmanager
async def moto_server(port: int | None = None, *, free_calls: float = math.inf) -> AsyncIterator[Server]:
    """Run moto's server.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.
        free_calls: calls before IAM's users and policies are enforced.

    Raises:
        RuntimeError: there is no moto_server, or it doesn't start.
    """
    program("moto_server", "pip install 'moto[server]'")
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="ketch-moto-") as name:
        server = Server(
            f"sqs://test:test@127.0.0.1:{port}?region=us-east-1",
            [sys.executable, "-c", _MOTO, str(free_calls), "-H", "127.0.0.1", "-p", str(port)],
            Path(name),
            partial(listens, port, b"HTTP/1.", _HELLO),
            patience=30.0,  # it imports a great deal
        )
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
