"""The tutorial's first variant: take the configured broker out of the service and do the rest by hand.

Run it beside a user-service that has `SHIPPY_EVENTS=raw`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from typing import TYPE_CHECKING

from ketch import KetchError, Options, Service
from ketch.errors import ConfigurationError

if TYPE_CHECKING:
    from ketch.broker import Subscription

log = logging.getLogger("shippy.email_service")

service = Service("go.micro.srv.email")


async def listen(options: Options) -> None:
    """Send a mail for each `user.created` until SIGTERM."""
    # 1. What init() made is configured, not connected: that is ours to do, and to undo.
    async with options.registry, options.transport:
        await options.broker.open(options.site())
        try:
            # 2. Subscribe. The group is what the typed variant has as well: instances share the events.
            subscription = await options.broker.subscribe("user.created", group=options.name)
            stopping = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stopping.set)
            stop = asyncio.create_task(_stop(stopping, subscription))
            log.info("%s is up: subscribed to user.created", options.name)
            try:
                # 3. Take what comes, in batches, and decode it by hand. After stop() the batch is empty.
                while batch := await subscription.receive():
                    for delivery in batch:
                        send_welcome(delivery.message.body)
            finally:
                stop.cancel()
        finally:
            await options.broker.close()


def send_welcome(body: bytes) -> None:
    """Send one mail; what is no user is logged, and the next event is taken."""
    try:
        name = json.loads(body)["name"]
    except (ValueError, KeyError, TypeError):
        log.error("dropped a user.created that holds no user: %d bytes", len(body))  # noqa: TRY400 - not ours to trace
        return
    log.info("Sending email to: %s", str(name)[:200])


async def _stop(stopping: asyncio.Event, subscription: Subscription) -> None:
    await stopping.wait()
    await subscription.stop()


def main() -> None:
    """Run until SIGTERM; exit 2 when the configuration is wrong, 1 when the broker is lost."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s", datefmt="%Y/%m/%d %H:%M:%S")
    try:
        asyncio.run(listen(service.init()))
    except ConfigurationError as error:
        log.error("%s", error)  # noqa: TRY400 - the sentence says it all
        sys.exit(2)
    except KetchError as error:
        log.error("%s", error)  # noqa: TRY400 - as above
        sys.exit(1)


if __name__ == "__main__":
    main()
