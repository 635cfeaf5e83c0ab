"""Calls to SNS and SQS: retried while it makes sense, their errors mapped; and whether the endpoint is reached."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack
from functools import cache
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import create_loader

from ...errors import BrokerUnavailable
from .failures import FAILURES, is_denied, is_gone, is_passing, reason, refusal

if TYPE_CHECKING:
    from botocore.loaders import Loader

    from .config import Config

log = logging.getLogger("ketch.broker")

#: Seconds between two tries, at first and at most; up to half of it is left to chance.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0

#: Calls under way at a time, beside long polls.
_CALLS = 32

#: Connections, which bounds long polls too.
_CONNECTIONS = 1000


@cache
def _loader() -> Loader:
    """Return the descriptions of AWS's services; a process reads each once, which takes a tenth of a second."""
    return create_loader()


class Aws:
    """The two services' clients, and what is known of the endpoint.

    Attributes:
        config: the URL's options.
        trouble: why calls fail just now; "" where they don't.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.trouble = ""
        self._clients: dict[str, Any] = {}
        self._stack = AsyncExitStack()
        self._slots = asyncio.Semaphore(_CALLS)
        self._probing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the clients, and look whether the endpoint answers and knows us.

        Raises:
            BrokerUnavailable: it doesn't answer within the connect timeout.
            BrokerError: it refuses us, or there are no credentials or region.
        """
        self._slots = asyncio.Semaphore(_CALLS)
        self.trouble = ""
        try:
            try:
                async with asyncio.timeout(self.config.connect_timeout):
                    await self._connect()
                    await self._ping()
            except BaseException:
                await self.close()
                raise
        except TimeoutError:
            seconds = f"{self.config.connect_timeout:g} s"
            raise BrokerUnavailable(f"{self.config.location}: no answer within {seconds}; is it running?") from None
        except FAILURES as error:
            if is_passing(error):
                raise BrokerUnavailable(f"{self.config.location}: {reason(error)}; is it running?") from error
            raise refusal(error, self.config.location, "sqs", "get_queue_url") from error

    async def _connect(self) -> None:
        config = self.config
        session = AioSession()
        session.register_component("data_loader", _loader())
        options = AioConfig(
            connect_timeout=config.connect_timeout,
            read_timeout=config.wait + config.timeout,
            max_pool_connections=_CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": 1},  # tries are counted here, by time
            client_cert=config.certificate,
        )
        for service in ("sns", "sqs"):
            client = session.create_client(
                service,
                region_name=config.region or None,
                endpoint_url=config.endpoint or None,
                aws_access_key_id=config.key or None,
                aws_secret_access_key=config.secret or None,
                verify=config.verify,
                config=options,
            )
            self._clients[service] = await self._stack.enter_async_context(client)

    async def _ping(self) -> None:
        """Ask for a queue that isn't there: whoever may do nothing at all is still told so."""
        try:
            await self._clients["sqs"].get_queue_url(QueueName=f"{self.config.prefix}_is_anybody_there")
        except ClientError as error:
            if not is_gone(error) and not is_denied(error):
                raise

    async def call(self, service: str, operation: str, seconds: float | None = None, **params: Any) -> dict[str, Any]:
        """Make a call; again, after a pause, while it fails in passing and there is time.

        Raises:
            BrokerUnavailable: it did not succeed within `seconds`, the publish timeout if not said.
            BrokerError: it is refused; `is_gone` and `is_denied` tell by what.
        """
        seconds = self.config.timeout if seconds is None else seconds
        failure: BaseException | None = None
        pause = FIRST_PAUSE
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        async with self._slots:
                            return await self.once(service, operation, **params)
                    except FAILURES as error:
                        if not is_passing(error):
                            raise refusal(error, self.config.location, service, operation) from error
                        failure = error
                    await asyncio.sleep(jittered(pause))
                    pause = min(2 * pause, LONGEST_PAUSE)
        except TimeoutError:
            if failure is None and seconds >= self.config.timeout / 2:  # else it may have been our own haste
                self.lost("no answer")
            why = reason(failure) if failure else "no answer"
            raise BrokerUnavailable(f"{self.config.location}: {operation} within {seconds:g} s: {why}") from failure

    async def once(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """Make a call without trying again; the driver's exceptions pass."""
        client = self._clients.get(service)
        if client is None:
            raise BrokerUnavailable("sqs: the broker isn't open")
        try:
            reply: dict[str, Any] = await getattr(client, operation)(**params)
        except ClientError:
            self.reached()
            raise
        except FAILURES as error:
            if is_passing(error):
                self.lost(reason(error))
            raise
        self.reached()
        return reply

    def lost(self, why: str) -> None:
        """Note that the endpoint can't be reached, and look for it until it can."""
        if self.trouble or not self._clients:
            return
        self.trouble = f"{self.config.location} can't be reached: {why}"
        log.warning("sqs: %s; trying on", self.trouble)
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(), name="sqs: looking for the endpoint")

    def reached(self) -> None:
        """Note that the endpoint answers."""
        if self.trouble:
            self.trouble = ""
            log.warning("sqs: %s is back; subscriptions go on", self.config.location)

    async def _probe(self) -> None:
        pause = FIRST_PAUSE
        while self.trouble:
            await asyncio.sleep(jittered(pause))
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                async with asyncio.timeout(self.config.connect_timeout):
                    await self._ping()
                self.reached()
            except ClientError:
                self.reached()
            except (BotoCoreError, OSError) as error:
                log.debug("sqs: %s: %s", self.config.location, reason(error))

    async def close(self) -> None:
        """Disconnect."""
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.cancel()
            await asyncio.wait({probing})
        self._clients = {}
        await self._stack.aclose()
        self.trouble = ""


def jittered(pause: float) -> float:
    """Return a pause, shortened by up to a half, so that not all come back at the same time."""
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret about it
