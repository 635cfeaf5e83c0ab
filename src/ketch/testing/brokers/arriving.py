# ruff: noqa: D102 - a test's name is its sentence
"""What arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ...errors import MessageTooLarge
from .cases import Cases

if TYPE_CHECKING:
    from ...broker import Broker
    from .stage import Stage


class Arriving(Cases):
    """Bodies and headers arrive as they were published."""

    async def test_a_message_arrives_as_it_was_published(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        sent = stage.message(b"hello", **{"x-tenant": "bbc"})
        await here.publish(sent)
        (came,) = await stage.take(subscription, 1)
        assert (came.topic, dict(came.headers), came.body) == (sent.topic, dict(sent.headers), sent.body)

    async def test_the_attributes_of_the_event_are_there(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        sent = stage.message(b"x", tenant="bbc")
        await here.publish(sent)
        (came,) = await stage.take(subscription, 1)
        assert (came.id, came.type, came.source, came.time) == (sent.id, sent.type, sent.source, sent.time)
        assert came.content_type == "application/octet-stream"
        assert came.metadata == {"tenant": "bbc"}

    async def test_metadata_of_every_legal_name_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        names = ("a", "x-y", "x_y", "x.y", "1st", "traceparent", "partitionkey", "data", "id", "source")
        metadata = {name: f"value of {name}: a, b; c=d" for name in names} | {"long": "v" * 2000}
        await here.publish(stage.message(b"", **metadata))
        (came,) = await stage.take(subscription, 1)
        assert came.metadata == metadata

    async def test_unicode_in_headers_and_body_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        await here.publish(stage.message("größe 服务 🐍".encode(), where="Zürich 服务 🐍 50% %41"))
        (came,) = await stage.take(subscription, 1)
        assert came.body.decode() == "größe 服务 🐍"
        assert came.metadata == {"where": "Zürich 服务 🐍 50% %41"}

    async def test_an_empty_header_value_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        await here.publish(stage.message(b"x", blank="", last="y"))
        (came,) = await stage.take(subscription, 1)
        assert came.metadata == {"blank": "", "last": "y"}

    async def test_an_empty_body_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        await stage.publish(here, [b"", b"after"])
        assert sorted(await stage.bodies(subscription, 2)) == [b"", b"after"]

    async def test_a_body_of_every_byte_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        body = bytes(range(256)) * 4 + b"\r\n\r\nMSG x 1 0\r\n{"
        await stage.publish(here, [body])
        assert await stage.bodies(subscription, 1) == [body]

    async def test_a_large_body_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        body = (bytes(range(251)) * 2000)[: here.capabilities.max_message_size]
        await stage.publish(here, [body, b"small", body])
        assert sorted(await stage.bodies(subscription, 3), key=len) == [b"small", body, body]

    async def test_a_body_over_the_limit_is_refused_and_the_broker_goes_on(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        self.need(here, "max_message_size")
        subscription = await stage.subscribe(there)
        with pytest.raises(MessageTooLarge):
            await here.publish(stage.message(bytes((here.capabilities.max_message_size or 0) + 1)))
        await stage.publish(here, [b"fits"])
        assert await stage.bodies(subscription, 1) == [b"fits"]

    async def test_what_the_receiver_got_is_its_own(self, stage: Stage, here: Broker, there: Broker) -> None:
        """One subscription's delivery may be marked without the others seeing it."""
        subscriptions = [await stage.subscribe(there) for _ in range(2)]
        await stage.publish(here, [b"x"])
        (one,) = await stage.batch(subscriptions[0])
        (two,) = await stage.batch(subscriptions[1])
        assert one is not two
