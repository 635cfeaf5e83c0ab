"""NATS without the framework: a plain client reads what user-service publishes, and publishes what it likes.

python -m shippy.email_service.plain_nats                    listen (the address: NATS_URL)
python -m shippy.email_service.plain_nats publish "Ada"      publish a user.created, as JSON
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import nats

from ..user.v1.user_pb2 import User

if TYPE_CHECKING:
    from nats.aio.msg import Msg


async def listen(url: str) -> None:
    """Send a mail for each `user.created` until SIGTERM."""
    client = await nats.connect(url, max_reconnect_attempts=-1)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await client.subscribe("user.created", cb=send_welcome)
    await client.flush()
    _say("plain NATS client is up: subscribed to user.created")
    await stopped.wait()
    await client.drain()


async def send_welcome(message: Msg) -> None:
    """Send one mail. The body is the bare payload; what it is, the header `content-type` says."""
    kind = (message.headers or {}).get("content-type", "")
    # Here is the place to decode defensively; one that can't be read raises, and the client goes on.
    name = json.loads(message.data)["name"] if "json" in kind else User.FromString(message.data).name
    _say(f"Sending email to: {name}")


async def publish(url: str, name: str) -> None:
    """Publish a user.created that any subscriber understands."""
    client = await nats.connect(url)
    await client.publish("user.created", json.dumps({"id": "0", "name": name}).encode())
    await client.drain()


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y/%m/%d %H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Listen, or publish one event."""
    url = os.environ.get("NATS_URL") or "nats://127.0.0.1:4222"
    asyncio.run(publish(url, " ".join(sys.argv[2:])) if sys.argv[1:2] == ["publish"] else listen(url))


if __name__ == "__main__":
    main()
