"""Run the agent: `python -m ketch.testing.servers.consuld --port 8500 --state consul.json`."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from random import uniform
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aiohttp import web

from .state import State, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

_NODE = {"Node": "test", "Address": "127.0.0.1", "Datacenter": "dc1"}


class Api:
    """The requests that are answered."""

    def __init__(self, state: State, token: str) -> None:
        self._state = state
        self._token = token

    async def serve(self, request: web.Request) -> web.Response:  # noqa: PLR0911 - one for each kind of request
        """Answer one, as Go's router would have it."""
        path = unquote(request.path)
        if self._token and request.headers.get("X-Consul-Token") != self._token and path != "/v1/status/leader":
            return web.Response(
                status=403, text="Permission denied: token with AccessorID 'anonymous' lacks permission"
            )
        match request.method, *path.removeprefix("/v1/").split("/", 2):
            case "GET", "status", "leader":
                return web.json_response("127.0.0.1:8300")
            case "PUT", "agent", "service", what:
                return await self._service(request, what)
            case "PUT", "agent", "check", what:
                return self._check(what)
            case "GET", "catalog", "services":
                return await self._answer(request, self._catalog, lambda: self._state.index)
            case "GET", "health", "service", name:
                name = name.lower()
                return await self._answer(request, lambda: self._health(name), lambda: self._index_of(name))
        return web.Response(status=404, text="no such path")

    async def _service(self, request: web.Request, what: str) -> web.Response:
        if what == "register":
            reason = self._state.register(await request.json())
            return web.Response(status=400 if reason else 200, text=reason)
        service_id = what.removeprefix("deregister/")
        known = self._state.deregister(service_id)
        return web.Response(status=200 if known else 404, text="" if known else f'Unknown service ID "{service_id}"')

    def _check(self, what: str) -> web.Response:
        check_id = what.removeprefix("pass/")
        known = self._state.beat(check_id)
        return web.Response(status=200 if known else 404, text="" if known else f'Unknown check ID "{check_id}"')

    async def _answer(self, request: web.Request, answer: Callable[[], Any], newest: Callable[[], int]) -> web.Response:
        index = int(request.query.get("index", "0"))
        if index:
            wait = seconds(request.query.get("wait") or "300s")
            try:
                async with asyncio.timeout(wait + uniform(0, wait / 16)):  # noqa: S311 - as Consul spreads them
                    while newest() == index:
                        await self._state.changed.wait()
            except TimeoutError:
                pass
        return web.json_response(answer(), headers={"X-Consul-Index": str(newest())})

    def _catalog(self) -> dict[str, list[str]]:
        services: dict[str, set[str]] = {"consul": set()}
        for service in self._state.services.values():
            services.setdefault(service.name, set()).update(service.registration.get("Tags") or ())
        return {name: sorted(tags) for name, tags in services.items()}

    def _index_of(self, name: str) -> int:
        return self._state.indexes.get(name, self._state.index)

    def _health(self, name: str) -> list[dict[str, Any]]:
        return [
            {"Node": _NODE, "Service": {"Service": one.name, **one.registration}, "Checks": []}
            for one in self._state.services.values()
            if one.name.lower() == name and one.passing
        ]


async def serve(port: int, file: Path, token: str) -> None:
    """Serve until the process ends."""
    state = State(file)
    state.load()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", Api(state, token).serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8500, help="where to listen on 127.0.0.1")
    parser.add_argument("--state", type=Path, default=Path("consul.json"), help="what is kept over its end")
    parser.add_argument("--token", default="", help="what requests must carry")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.state, arguments.token))


if __name__ == "__main__":
    main()
