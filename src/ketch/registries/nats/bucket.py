"""Bucket: records in a bucket of NATS's KV, which is a stream of JetStream (ADR-8, ADR-43; JetStream wire API)."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...errors import RegistryError
from ..record import encode
from .keys import keys
from .questions import Questions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ...registry import Instance
    from .commands import Question
    from .config import Config
    from .link import Link

_API: Final = "$JS.API."

# `err_code` of the server's errors (server/errors.json of nats-server).
_STREAM_NOT_FOUND: Final = 10059
_STREAM_NAME_IN_USE: Final = 10058
_NO_MESSAGE: Final = 10037

#: Seconds between two tries while a cluster elects a leader, or a bucket is made.
_PAUSE: Final = 0.1

#: Seconds that the server remembers a consumer whose watcher has gone without a word.
_FORGET: Final = 10

#: Nanoseconds in which the server knows duplicates again, of which there are none; the least that it takes.
_DUPLICATES: Final = 100 * 10**6

#: Least time to live of a message, in seconds (ADR-43).
_LEAST_TTL: Final = 1


class Bucket:
    """One key for each name that an instance answers to, each with its record as value.

    Where the server can (2.11 and later), each record has its own time to live, and the server tells watchers when one
    has run out; elsewhere the bucket has one for all records, and watchers find out by themselves.

    Args:
        link: to a server with JetStream.
        config: the bucket's name and properties.
    """

    def __init__(self, link: Link, config: Config) -> None:
        self._link = link
        self._questions = Questions(link)
        self._config = config
        self._where = config.access.location
        self.stream = f"KV_{config.bucket}"
        self._prefix = f"$KV.{config.bucket}."
        self._headers: bytes | None = None  # of a record; None while the bucket isn't known
        self._making = asyncio.Lock()
        self._filed: dict[str, tuple[str, ...]] = {}

    def forget(self) -> None:
        """Look for the bucket again before the next use: the server may have come back without it."""
        self._headers = None

    def key(self, subject: str) -> str:
        """Return the key of a subject."""
        return subject[len(self._prefix) :]

    # --- the bucket itself

    async def check(self) -> bytes:
        """Find or make the bucket; return the headers that its records need.

        Raises:
            RegistryError: there is no JetStream, or the server refuses.
        """
        async with self._making:
            if self._headers is None:
                info = await self.ask(f"STREAM.INFO.{self.stream}", {}, unless=(_STREAM_NOT_FOUND,))
                if info is None:
                    info = await self.ask(
                        f"STREAM.CREATE.{self.stream}", self._wanted(), unless=(_STREAM_NAME_IN_USE,)
                    ) or await self.ask(f"STREAM.INFO.{self.stream}", {})
                self._headers = self._record_headers(info.get("config", {}) if info else {})
            return self._headers

    def _wanted(self) -> dict[str, Any]:
        config = self._config
        return {
            "name": self.stream,
            "description": "instances of ketch services",
            "subjects": [f"{self._prefix}>"],
            "retention": "limits",
            "storage": config.storage,
            "discard": "new",
            "max_msgs_per_subject": 1,
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            # A limit for all would be one for those as well who want their records to live longer.
            "max_age": 0 if self._link.limits_messages else self._nanoseconds(),
            "duplicate_window": _DUPLICATES,
            "num_replicas": config.replicas,
            "deny_delete": True,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "allow_msg_ttl": True,
            "subject_delete_marker_ttl": self._nanoseconds(),
        }

    def _nanoseconds(self) -> int:
        return math.ceil(self._config.ttl * 10**9)

    def _record_headers(self, config: dict[str, Any]) -> bytes:
        age = config.get("max_age", 0)
        single = bool(config.get("allow_msg_ttl"))
        if not age and not single:
            raise RegistryError(
                f"{self._where}: bucket {self._config.bucket} keeps records for ever; have it made anew by ketch, "
                "or by `nats kv add --ttl`"
            )
        if age and age < self._nanoseconds():
            raise RegistryError(
                f"{self._where}: bucket {self._config.bucket} forgets after {age / 1e9:g} s, "
                f"sooner than ?ttl={self._config.ttl:g}"
            )
        return b"Nats-TTL: %ds\r\n" % max(_LEAST_TTL, math.ceil(self._config.ttl)) if single else b""

    # --- records

    async def write(self, instances: Collection[Instance]) -> None:
        """Put records, or put them again.

        Raises:
            RegistryError: an instance can't be a record, or the server doesn't take one within the timeout.
        """
        filed = {instance.id: tuple(keys(instance)) for instance in instances}
        bodies = {instance.id: encode(instance) for instance in instances}
        gone = [key for id_, now in filed.items() for key in self._filed.get(id_, ()) if key not in now]
        await self._put([(key, bodies[id_]) for id_, now in filed.items() for key in now], gone)
        self._filed.update(filed)

    async def remove(self, instances: Collection[Instance]) -> None:
        """Delete records.

        Raises:
            RegistryError: the server doesn't confirm it within the timeout.
        """
        gone = [key for instance in instances for key in (self._filed.get(instance.id) or keys(instance))]
        await self._put([], gone)
        for instance in instances:
            self._filed.pop(instance.id, None)

    async def _put(self, records: Sequence[tuple[str, bytes]], gone: Sequence[str]) -> None:
        why = "no answer"
        try:
            async with asyncio.timeout(self._config.access.timeout):
                while why := await self._try_to_put(records, gone):
                    self.forget()
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            raise RegistryError(f"{self._where}: bucket {self._config.bucket} takes no records: {why}") from None

    async def _try_to_put(self, records: Sequence[tuple[str, bytes]], gone: Sequence[str]) -> str:
        """Put and delete; return what the server has against it."""
        headers = await self.check()
        questions: list[Question] = [(self._prefix + key, headers, body) for key, body in records]
        questions += [(self._prefix + key, b"KV-Operation: DEL\r\n" + headers, b"") for key in gone]
        for answer in await self._questions.ask_all(questions):
            if answer is None:
                return "it isn't there, or has no leader"
            if refusal := _read(answer).get("error"):
                return str(refusal.get("description", "refused"))
        return ""

    async def holds(self, key: str) -> int:
        """Return the sequence number of a key's latest message, 0 for none.

        Raises:
            RegistryError: the server doesn't say.
        """
        question = {"last_by_subj": self._prefix + key}
        found = await self.ask(f"STREAM.MSG.GET.{self.stream}", question, unless=(_NO_MESSAGE,))
        return int(found["message"]["seq"]) if found else 0

    async def consume(self, pattern: str, deliver: str, heartbeat: float) -> int:
        """Have the latest of each key that matches sent to a subject, and all that follows; return how many there are.

        Raises:
            RegistryError: the server refuses.
        """
        subject = self._prefix + pattern
        name = deliver.rpartition(".")[2]
        config = {
            "name": name,
            "deliver_subject": deliver,
            "deliver_policy": "last_per_subject",
            "filter_subject": subject,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": int(heartbeat * 10**9),
            "inactive_threshold": _FORGET * 10**9,
            "mem_storage": True,
            "num_replicas": 1,
        }
        await self.check()
        for last in (False, True):
            info = await self.ask(
                f"CONSUMER.CREATE.{self.stream}.{name}.{subject}",
                {"stream_name": self.stream, "config": config},
                unless=() if last else (_STREAM_NOT_FOUND,),
            )
            if info is not None:
                return int(info.get("num_pending", 0))
            self.forget()
            await self.check()
        return 0

    async def ask(self, what: str, question: dict[str, Any], *, unless: Sequence[int] = ()) -> dict[str, Any] | None:
        """Ask JetStream's API; None where it refuses with one of some codes.

        Raises:
            RegistryError: it refuses otherwise, or doesn't answer.
        """
        reply = await self._questions.ask(_API + what, msgspec.json.encode(question) if question else b"")
        if reply is None:
            raise RegistryError(
                f"{self._where}: JetStream isn't enabled there, or has no leader; start it with `nats-server -js`, "
                "or use the registry nats-services, or nats with ?format=go-micro, which need none"
            )
        answer = _read(reply)
        refusal = answer.get("error")
        if refusal is None:
            return answer
        if refusal.get("err_code") in unless:
            return None
        raise RegistryError(f"{self._where}: {what.partition('.')[0].lower()}: {refusal.get('description', 'refused')}")


def _read(answer: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(answer, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RegistryError(f"JetStream's answer can't be read: {error}") from error
