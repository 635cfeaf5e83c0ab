"""log: one line for each call and event, with how long it took and how it ended."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ..errors import StatusError

if TYPE_CHECKING:
    from ..call import Call, Next

_log = logging.getLogger("ketch.calls")


async def log(call: Call, call_next: Next) -> object:
    """Log direction, name, end and milliseconds; neither payload nor metadata, which may hold secrets."""
    started = time.perf_counter()
    end = "cancelled"
    try:
        reply = await call_next(call)
        end = "ok"
    except StatusError as error:
        end = error.code.name
        raise
    except Exception as error:
        end = type(error).__name__
        raise
    finally:
        _log.info("%s %s %s %.1f ms", call.kind, call.name, end, (time.perf_counter() - started) * 1000)
    return reply
