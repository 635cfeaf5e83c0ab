"""Streams and consumers of JetStream, declared from topics (docs.nats.io, "JetStream wire API Reference")."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from nats import errors

from ...errors import BrokerError, BrokerUnavailable, SubscriptionRefused
from ...pattern import matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.client import Client

_API: Final = "$JS.API."

# `err_code` of the server's errors (server/errors.json of nats-server).
_STREAM_NOT_FOUND: Final = 10059
_STREAM_NAME_IN_USE: Final = 10058
_SUBJECTS_OVERLAP: Final = 10065
_CONSUMER_NOT_FOUND: Final = 10014
_CONSUMER_EXISTS: Final = (10148, 10013)  # with another configuration

#: Topics whose streams are remembered.
_KNOWN: Final = 4096

#: Deliveries of one group, all members together, that may be unsettled.
_MAX_ACK_PENDING: Final = 100_000

#: Seconds after which a consumer without a group is forgotten, should its program have died.
_ALONE: Final = 300

#: Where events wait that are published for later.
SCHEDULES: Final = "_ketch.later"

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Streams:
    """Finds or makes the streams and consumers that topics and groups need.

    A topic lives in the stream that takes it, whoever made that. Where none does, one is made for all topics that begin
    with the same word: `user` takes `user.>`; or, with a stream's name in the URL, that one takes the topic as well.

    Args:
        client: connected.
        where: the server, for errors.
        timeout: seconds for each question.
        stream: the name of the one stream to use, "" for one for each first word.
        keep: seconds that streams we make keep events.
        replicas: how many servers keep them.
        ack_wait: seconds after which what is unsettled comes again, unless it is extended.
    """

    def __init__(
        self, client: Client, where: str, timeout: float, *, stream: str, keep: float, replicas: int, ack_wait: float
    ) -> None:
        self._client = client
        self._where = where
        self._timeout = timeout
        self._stream = stream
        self._keep = keep
        self._replicas = replicas
        self._ack_wait = ack_wait
        self._known: dict[str, str] = {}
        self._declaring = asyncio.Lock()

    def forget(self) -> None:
        """Look again: the server may have come back without them."""
        self._known.clear()

    def known(self, topic: str) -> bool:
        """Tell whether a topic's stream was seen."""
        return topic in self._known

    async def stream_of(self, topic: str) -> str:
        """Return the name of the stream that takes a topic, made if need be.

        Raises:
            BrokerUnavailable: the server doesn't answer.
            BrokerError: it refuses.
        """
        name = self._known.get(topic)
        if name is None:
            async with self._declaring:
                name = self._stream_that(await self._names(topic)) or await self._make(topic)
            if len(self._known) < _KNOWN:
                self._known[topic] = name
        return name

    def _stream_that(self, names: list[str]) -> str:
        if self._stream and names and self._stream not in names:
            raise BrokerError(f"{self._where}: stream {names[0]} takes the topic already, not {self._stream}")
        if len(names) > 1:
            raise BrokerError(f"{self._where}: a pattern of topics of several streams: {', '.join(names)}")
        return names[0] if names else ""

    async def _names(self, topic: str) -> list[str]:
        reply = await self._ask("STREAM.NAMES", {"subject": topic})
        return list((reply or {}).get("streams") or ())

    async def _make(self, topic: str) -> str:
        first = topic.partition(".")[0]
        if self._stream:
            return await self._widen(topic)
        if first in ("*", ">"):
            raise SubscriptionRefused(f"{self._where}: {topic} begins with no word, so no stream can be made for it")
        # Somebody's stream may take some of these topics, though not this one.
        made = await self._create(_name(first), [first, f"{first}.>"], unless=(_SUBJECTS_OVERLAP, _STREAM_NAME_IN_USE))
        return made or await self._create(_name(topic), [topic])

    async def _create(self, name: str, subjects: list[str], *, unless: Sequence[int] = ()) -> str:
        config = {
            "name": name,
            "subjects": [*subjects, f"{SCHEDULES}.{name}.>"],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_age": int(self._keep * 1e9),
            "num_replicas": self._replicas,
            "allow_msg_schedules": True,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
        }
        answer = await self._ask(f"STREAM.CREATE.{name}", config, unless=unless)
        return name if answer is not None else ""

    async def _widen(self, topic: str) -> str:
        name = _name(self._stream)
        info = await self._ask(f"STREAM.INFO.{name}", {}, unless=(_STREAM_NOT_FOUND,))
        if info is None:
            return await self._create(name, [topic])
        config = info["config"]
        if not any(matches(subject, topic) for subject in config.get("subjects", ())):
            config["subjects"] = [*config.get("subjects", ()), topic]
            await self._ask(f"STREAM.UPDATE.{name}", config)
        return name

    async def consumer(
        self, topic: str, group: str | None, *, since: float | None = None, after: int | None = None
    ) -> tuple[str, str, int]:
        """Return stream and consumer for a topic and group, made if need be, and the last event that it delivered.

        Args:
            topic: the topic, or a pattern of topics of one stream.
            group: None for a consumer of its own.
            since: UNIX time where a new one begins; None for now.
            after: a sequence number after which a new one begins, instead.

        Raises:
            BrokerUnavailable: the server doesn't answer.
            SubscriptionRefused: it refuses.
        """
        stream = await self.stream_of(topic)
        name = _name(f"{group}-{topic}") if group is not None else _name(f"alone-{secrets.token_hex(8)}")
        config: dict[str, Any] = {
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait * 1e9),
            "max_ack_pending": _MAX_ACK_PENDING,
            "max_waiting": 2048,
            "filter_subject": topic,
            "replay_policy": "instant",
            **_start(since, after),
        }
        if group is not None:
            config |= {"durable_name": name, "description": f"group {group} of {topic}"}
            info = await self._info(stream, name)
            if info is not None:
                return stream, name, _delivered(info)
        else:
            config |= {"name": name, "inactive_threshold": _ALONE * 10**9, "mem_storage": True}
        info = await self._ask(
            f"CONSUMER.CREATE.{stream}.{name}.{topic}",
            {"stream_name": stream, "config": config, "action": "create"},
            unless=_CONSUMER_EXISTS,  # another member was quicker
        )
        return stream, name, _delivered(info or await self._info(stream, name) or {})

    async def _info(self, stream: str, name: str) -> dict[str, Any] | None:
        return await self._ask(f"CONSUMER.INFO.{stream}.{name}", {}, unless=(_CONSUMER_NOT_FOUND, _STREAM_NOT_FOUND))

    async def exists(self, stream: str, name: str) -> bool:
        """Tell whether a consumer is still there.

        Raises:
            BrokerError: the server doesn't say.
        """
        return await self._info(stream, name) is not None

    async def after(self, topic: str, sequence: int) -> int:
        """Return where a consumer that is gone is to go on; in a stream that was made anew, at its beginning.

        Raises:
            BrokerError: the server doesn't say.
        """
        info = await self._ask(f"STREAM.INFO.{await self.stream_of(topic)}", {}) or {}
        return sequence if int(info["state"]["last_seq"]) >= sequence else 0

    async def forget_consumer(self, stream: str, name: str) -> None:
        """Have a consumer without a group forgotten."""
        await self._ask(f"CONSUMER.DELETE.{stream}.{name}", {})

    async def _ask(self, what: str, question: dict[str, Any], *, unless: Sequence[int] = ()) -> dict[str, Any] | None:
        """Ask JetStream's API; None where it refuses with one of some codes."""
        try:
            reply = await self._client.request(
                _API + what, msgspec.json.encode(question) if question else b"", timeout=self._timeout
            )
        except errors.NoRespondersError as error:
            raise BrokerError(f"{self._where}: JetStream isn't enabled there (nats-server -js)") from error
        except (errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"{self._where}: {str(error) or 'no answer'}") from error
        answer: dict[str, Any] = msgspec.json.decode(reply.data)
        refusal = answer.get("error")
        if refusal is None:
            return answer
        if refusal.get("err_code") in unless:
            return None
        raise SubscriptionRefused(f"{self._where}: {refusal.get('description', 'refused')}")


def _start(since: float | None, after: int | None) -> dict[str, Any]:
    if after is not None:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
    if since is None:
        return {"deliver_policy": "new"}
    if since <= 0:
        return {"deliver_policy": "all"}
    return {
        "deliver_policy": "by_start_time",
        "opt_start_time": datetime.fromtimestamp(since, UTC).isoformat().replace("+00:00", "Z"),
    }


def _name(text: str) -> str:
    """Return a name that JetStream takes: letters, digits, `-`, `_`; another text never has the same."""
    if _PLAIN_NAME.fullmatch(text):
        return text
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", text)[:48]
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _delivered(info: dict[str, Any]) -> int:
    return int(info.get("delivered", {}).get("stream_seq", 0))
