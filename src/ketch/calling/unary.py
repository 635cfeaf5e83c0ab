"""UnaryCall: what a call with one reply sends, at whichever instance, and what is learnt from its end there."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from ..errors import DeadlineExceeded, StatusError, Unavailable

if TYPE_CHECKING:
    from ..context import ReplyMetadata
    from ..rpc import Metadata
    from ..selector import Candidate
    from .plan import Plan

#: The weight of the newest call in a candidate's latency.
GAIN: Final = 0.1


class UnaryCall:
    """One call, ready to be sent.

    Attributes:
        received: filled with the metadata that comes along, None where nobody asked.
    """

    __slots__ = ("_body", "_compress", "_metadata", "_plan", "received")

    def __init__(
        self,
        plan: Plan,
        body: bytes,
        metadata: Metadata | None,
        received: ReplyMetadata | None,
        *,
        compress: bool | None,
    ) -> None:
        self._plan = plan
        self._body = body
        self._metadata = metadata
        self._compress = compress
        self.received = received

    async def send(self, candidate: Candidate, left: float | None, apart: ReplyMetadata | None = None) -> bytes:
        """Send it to a candidate within so many seconds, and return the reply's body.

        Raises:
            StatusError: what it ended with; the roster has heard of it.
        """
        plan = self._plan
        began = monotonic()
        candidate.in_flight += 1
        try:
            reply = await candidate.channel.unary(
                plan.method.path,
                self._body,
                content_type=plan.content_type,
                metadata=self._metadata,
                timeout=left,
                received=apart or self.received,
                compress=self._compress,
            )
        except (Unavailable, DeadlineExceeded) as error:
            plan.roster.failed(candidate, error, monotonic() - began)
            raise
        except StatusError:
            candidate.failures = 0
            raise
        finally:
            candidate.in_flight -= 1
        candidate.failures = 0
        candidate.latency += GAIN * (monotonic() - began - candidate.latency)
        return reply
