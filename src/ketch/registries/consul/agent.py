"""Agent: HTTP to a Consul agent (developer.hashicorp.com/consul/api-docs), bounded in time and size."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from ...errors import NotRunning, RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import Config

#: The longest answer that is read, in bytes: some ten thousand instances.
MAX_ANSWER = 32 * 1024 * 1024

#: What a server adds at most to the time that a query may block, as a part of it, to spread the answers.
_SERVER_JITTER = 1 / 16
_MAX_REASON = 200  # characters of a refusal that are shown


class Agent:
    """Requests to one agent, over connections that are kept."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        return self._session is not None

    def open(self) -> None:
        """Make requests possible; nothing is sent.

        Raises:
            RegistryError: the token can't be read.
        """
        config = self._config
        token = config.read_token()
        connector = (
            aiohttp.UnixConnector(config.socket, limit=0)
            if config.socket
            else aiohttp.TCPConnector(limit=0, ssl=config.tls if config.tls is not None else True)
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"X-Consul-Token": token} if token else {},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.timeout),
        )

    async def close(self) -> None:
        """Break the connections. Closing twice is no error."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def wait_for_leader(self) -> None:
        """Wait until the agent's cluster can be read and written.

        Raises:
            RegistryError: it can't within the timeout.
        """
        reason = RegistryError(f"consul at {self._config.place} has no leader: its servers can't agree on one")
        try:
            async with asyncio.timeout(self._config.timeout):
                while True:
                    status, body, _ = await self._request("GET", "/v1/status/leader", {}, None, self._config.timeout)
                    if status == 200 and body.strip() not in (b'""', b""):  # noqa: PLR2004 - HTTP
                        return
                    if status != 200:  # noqa: PLR2004 - HTTP
                        reason = self._refusal("is asked for its leader", status, body)
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise reason from None

    async def query(self, path: str, index: int, wait: float) -> tuple[bytes, int]:
        """Ask a question that blocks until its answer is newer than `index`, or for `wait` seconds; 0 for at once.

        Return the answer and its index.

        Raises:
            RegistryError: there is no answer, or a refusal.
        """
        config = self._config
        params = dict(config.scope)
        if config.dc:
            params["dc"] = config.dc
        if config.consistency != "default":
            params[config.consistency] = ""
        patience = config.timeout
        if index:
            params |= {"index": str(index), "wait": f"{int(wait * 1000)}ms"}
            patience += wait * (1 + _SERVER_JITTER)
        status, body, headers = await self._request("GET", path, params, None, patience)
        if status != 200:  # noqa: PLR2004 - HTTP
            raise self._refusal(f"is asked for {path}", status, body)
        text = headers.get("X-Consul-Index", "")
        if not (text.isascii() and text.isdigit() and len(text) <= 20):  # noqa: PLR2004 - digits of 64 bits
            raise RegistryError(f"consul at {config.place}: its answer has no X-Consul-Index; is that a Consul agent?")
        return body, int(text)

    async def put(self, path: str, value: Any = None, **params: str) -> tuple[int, RegistryError]:
        """Write. Return the status, and the error to raise if that isn't the wanted one.

        Raises:
            RegistryError: there is no answer.
        """
        body = None if value is None else json.dumps(value, ensure_ascii=False).encode()
        scoped = {**self._config.scope, **params}
        status, answer, _ = await self._request("PUT", path, scoped, body, self._config.timeout)
        return status, self._refusal(f"is told {path}", status, answer)

    async def _request(
        self, method: str, path: str, params: dict[str, str], data: bytes | None, patience: float
    ) -> tuple[int, bytes, Mapping[str, str]]:
        if self._session is None:
            raise NotRunning("the consul registry isn't open; use it as `async with registry:`")
        config = self._config
        url = URL(config.base + path, encoded=True).update_query(params)
        try:
            async with (
                asyncio.timeout(patience),
                self._session.request(method, url, data=data, allow_redirects=False) as response,
            ):
                return response.status, await self._read(response), response.headers
        except TimeoutError:
            raise RegistryError(f"consul at {config.place} doesn't answer within {config.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise RegistryError(
                f"consul at {config.place}: {str(error) or type(error).__name__}; is it running?"
            ) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts = bytearray()
        async for part in response.content.iter_any():
            parts += part
            if len(parts) > MAX_ANSWER:
                response.close()
                raise RegistryError(f"consul at {self._config.place}: an answer is over {MAX_ANSWER} bytes")
        return bytes(parts)

    def _refusal(self, told: str, status: int, body: bytes) -> RegistryError:
        advice = "; check the token and its policy" if status in (401, 403) else ""
        reason = body[:_MAX_REASON].decode(errors="replace").strip()
        return RegistryError(f"consul at {self._config.place} answers {status} when it {told}: {reason!r}{advice}")
