"""The program: `python -m shippy.user_service` or `ketch run shippy.user_service.main:service`."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ketch import Service

from ..contract import user_created
from .announcing import Announce, AtMostOnce, Outbox, raw_json
from .config import Config
from .database import open_database
from .passwords import Passwords
from .store import Store
from .tokens import Tokens
from .users import Users

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..user.v1.user_pb2 import User

log = logging.getLogger("shippy.user_service")

service = Service("go.micro.srv.user", version="1.0.0")
created = service.publisher(user_created)
users = Users()
service.serve(users)


async def typed(user: User) -> None:
    """Announce with the typed publisher, the tutorial's second variant. Nothing of the call in hand goes along."""
    await created.publish(user, metadata={"id": user.id})


@service.lifespan
async def open_users() -> AsyncIterator[None]:
    """Open what the servicer works with, before the first call comes."""
    config = Config.from_env()
    publish: Announce = typed if config.events == "typed" else raw_json(service.options.broker)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(config.database))
        store = Store(database, outbox=config.outbox)
        announce: Announce = AtMostOnce(publish)
        if config.outbox:
            announce = outbox = Outbox(store, publish)
            await stack.enter_async_context(outbox.relaying())
        passwords = await stack.enter_async_context(Passwords())
        users.open(store, passwords, Tokens(config.jwt_key), announce)
        stack.push_async_callback(users.close)
        log.info("users are kept in %s", database.location)
        yield


def main() -> None:
    """Run until SIGTERM."""
    service.run()


if __name__ == "__main__":
    main()
