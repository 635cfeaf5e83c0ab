"""A service of a stranger's, that reacts to new users. NAME, GROUP and DOES say which one and how."""

import asyncio
import os
import sys

from ketch import Service, context
from shippy.contract import user_created
from shippy.user.v1.user_pb2 import User

name = os.environ["NAME"]
does = os.environ.get("DOES", "")
service = Service(name)


@service.subscribe(user_created, group=None if os.environ.get("GROUP") == "none" else name)
async def handle(user: User) -> None:
    sys.stdout.write(f"begin <{user.name}>\n")
    if does == "fail":
        raise RuntimeError("this subscriber always fails")
    if does == "crash":
        sys.stdout.flush()
        os._exit(3)
    if does == "hang":
        await asyncio.Event().wait()
    if does == "slow":
        await asyncio.sleep(0.7)
    sys.stdout.write(f"got <{user.name}> with {dict(context.current().metadata)}\n")


service.run()
