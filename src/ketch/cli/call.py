"""ketch call: one call, JSON in and out, no .proto needed: the server's codec maps JSON to its messages."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from .. import settings
from ..codec import JSON
from ..directory import Directory
from ..errors import ConfigurationError, Unavailable
from ..message import own_metadata
from ..options import Options, build
from .output import body, checked_json, pairs, pretty

if TYPE_CHECKING:
    import argparse

    from ..transport import Channel


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("call", help="call a method and print the reply", description=__doc__)
    add = parser.add_argument
    add("method", metavar="CONTRACT/METHOD", help="such as shippy.user.v1.UserService/Get")
    add("body", nargs="?", default="{}", metavar="JSON", help="the request; - reads standard input (default: {})")
    add("--service", default="", help="only instances of this service, not all that serve the contract")
    add("--address", default="", help="call this address instead of looking into the registry")
    add("--metadata", action="append", default=[], metavar="NAME=VALUE", help="send along; repeatable")
    add("--timeout", type=float, help="seconds (default: the client's, 5)")
    add("--stream", action="store_true", help="the method streams its replies: print one JSON a line")
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Call and print."""
    contract, slash, method = arguments.method.strip("/").rpartition("/")
    if not slash or not contract or not method:
        raise ConfigurationError(f"{arguments.method!r} is no CONTRACT/METHOD, such as shippy.user.v1.UserService/Get")
    request = checked_json(body(arguments.body))
    options = build(settings.read(arguments), {})
    asyncio.run(_call(options, contract, f"/{contract}/{method}", request, arguments))
    return 0


async def _call(options: Options, contract: str, path: str, request: bytes, arguments: argparse.Namespace) -> None:
    timeout = options.request_timeout if arguments.timeout is None else arguments.timeout
    metadata = dict(own_metadata(pairs(arguments.metadata)))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(options.transport)
        address = arguments.address or await _find(options, arguments.service or contract, stack)
        channel = options.transport.connect(address)
        stack.push_async_callback(channel.close)
        if arguments.stream:
            await _print_stream(channel, path, request, metadata, timeout)
        else:
            reply = await channel.unary(path, request, content_type=JSON, metadata=metadata, timeout=timeout)
            print(pretty(reply))


async def _find(options: Options, service: str, stack: AsyncExitStack) -> str:
    await stack.enter_async_context(options.registry)
    directory = Directory(options.registry, options.transport.name)
    stack.push_async_callback(directory.close)
    await directory.look(service)
    instances = directory.known(service)
    if not instances:
        raise Unavailable(f"{service}: no instance in registry {options.registry.name} {options.registry.location}")
    return random.choice(instances).address  # noqa: S311 - whichever


async def _print_stream(channel: Channel, path: str, request: bytes, metadata: dict[str, str], timeout: float) -> None:
    stream = await channel.stream(path, content_type=JSON, metadata=metadata, timeout=timeout)
    try:
        await stream.send(request)
        await stream.end()
        while (reply := await stream.receive()) is not None:
            print(pretty(reply, indent=None), flush=True)
    finally:
        stream.cancel()
