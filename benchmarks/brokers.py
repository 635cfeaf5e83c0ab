"""Typed events at least once, publish to handler: ketch against FastStream and the raw client, on the same server.

    python benchmarks/brokers.py [--rounds 3] [--seconds 2] [--only rabbitmq,kafka,redis,jetstream]

As in events.py, publisher and subscriber are processes of their own, on uvloop, for every contender; all carry the same
user with the same six headers and call one `async def handle(user)` for each event. Each event is confirmed to its
publisher by the broker, 64 tasks publish at a time, and each is acknowledged after its handler. FastStream gets
first publish to the last handled. Kafka is Tansu from a wheel, or with `--kafka-jars FOLDER` Kafka itself.
first publish to the last handled. Kafka is Tansu from a wheel unless `--kafka-jars FOLDER` names Kafka's own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import uvloop
from events import HEADERS, TOPIC, USER, Counter, ready
from events import User as Payload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TASKS = 64
GROUP = "bench"

#: Events of a second, about, by contender, so that each runs for about as long.
RATES = {
    "rabbitmq": {"FastStream": 1_500, "raw": 3_000, "ketch": 10_000},
    "kafka": {"FastStream": 6_000, "raw": 20_000, "ketch": 20_000},
    "redis": {"FastStream": 2_000, "raw": 5_000, "ketch": 25_000},
    "jetstream": {"raw": 5_000, "ketch": 15_000},
}


def address(url: str) -> str:
    """Return host:port of a URL."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0]


# Subscribers: subscribe, say "ready", return when everything was handled.


async def subscribe_ketch(counter: Counter, url: str) -> None:
    from ketch import Service, Topic

    service = Service(GROUP, broker=url)

    @service.subscribe(Topic(TOPIC, Payload, delivery="at-least-once"))
    async def handle(user: Payload) -> None:
        counter.add(user)

    async with service:
        await ready(counter)


async def faststream_ready(broker: Any, counter: Counter) -> None:
    """Start a FastStream broker, count, stop it."""
    await broker.start()
    await ready(counter)
    await broker.stop()


async def subscribe_faststream_rabbitmq(counter: Counter, url: str) -> None:
    from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
    from faststream.rabbit.schemas import QueueType

    broker = RabbitBroker(
        f"amqp://guest:guest@{address(url)}/", logger=None, default_channel=Channel(prefetch_count=256)
    )

    @broker.subscriber(RabbitQueue("bench.faststream", queue_type=QueueType.QUORUM, durable=True))
    async def handle(body: bytes) -> None:
        counter.add(Payload.FromString(body))

    await faststream_ready(broker, counter)


async def subscribe_raw_rabbitmq(counter: Counter, url: str) -> None:
    import aio_pika

    async with await aio_pika.connect(f"amqp://guest:guest@{address(url)}/") as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=256)
        queue = await channel.declare_queue("bench.raw", durable=True, arguments={"x-queue-type": "quorum"})

        async def handle(user: Payload) -> None:
            counter.add(user)

        async def on_message(message: Any) -> None:
            await handle(Payload.FromString(message.body))
            await message.ack()

        await queue.consume(on_message)
        await ready(counter)


async def subscribe_faststream_kafka(counter: Counter, url: str) -> None:
    from faststream.kafka import KafkaBroker

    broker = KafkaBroker(address(url), logger=None)

    @broker.subscriber(TOPIC + ".faststream", group_id=GROUP, auto_offset_reset="earliest")
    async def handle(body: bytes) -> None:
        counter.add(Payload.FromString(body))

    await faststream_ready(broker, counter)


async def subscribe_raw_kafka(counter: Counter, url: str) -> None:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        TOPIC + ".raw",
        bootstrap_servers=address(url),
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )

    async def handle(user: Payload) -> None:
        counter.add(user)

    async def consume() -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=500, max_records=256)).values():
                for record in records:
                    await handle(Payload.FromString(record.value))
            await consumer.commit()

    await consumer.start()
    task = asyncio.create_task(consume())
    await ready(counter)
    task.cancel()
    await asyncio.wait({task})
    await consumer.stop()


async def subscribe_faststream_redis(counter: Counter, url: str) -> None:
    from faststream.redis import RedisBroker, StreamSub

    broker = RedisBroker(f"redis://{address(url)}", logger=None)

    @broker.subscriber(stream=StreamSub("bench.faststream", group=GROUP, consumer="one"))
    async def handle(body: bytes) -> None:
        counter.add(Payload.FromString(body))

    await faststream_ready(broker, counter)


async def subscribe_raw_redis(counter: Counter, url: str) -> None:
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(f"redis://{address(url)}")
    await client.xgroup_create("bench.raw", GROUP, mkstream=True)

    async def handle(user: Payload) -> None:
        counter.add(user)

    async def consume() -> None:
        while True:
            for stream, entries in await client.xreadgroup(GROUP, "one", {"bench.raw": ">"}, count=256, block=500):
                for _, fields in entries:
                    await handle(Payload.FromString(fields[b"data"]))
                await client.xack(stream, GROUP, *(id_ for id_, _ in entries))

    task = asyncio.create_task(consume())
    await ready(counter)
    task.cancel()
    await asyncio.wait({task})
    await client.aclose()


async def subscribe_raw_jetstream(counter: Counter, url: str) -> None:
    import nats
    import nats.errors

    connection = await nats.connect(f"nats://{address(url)}")
    stream = connection.jetstream()
    await stream.add_stream(name="raw", subjects=["raw.>"])
    subscription = await stream.pull_subscribe("raw.user", durable=GROUP)

    async def handle(user: Payload) -> None:
        counter.add(user)

    async def consume() -> None:
        while True:
            with contextlib.suppress(nats.errors.TimeoutError):
                for message in await subscription.fetch(256, timeout=1):
                    await handle(Payload.FromString(message.data))
                    await message.ack()

    task = asyncio.create_task(consume())
    await ready(counter)
    task.cancel()
    await asyncio.wait({task})
    await connection.close()


# Publishers: report when they began, publish `count` events, each confirmed.


async def go(count: int, publish: Callable[[], Awaitable[Any]]) -> None:
    """Report the beginning and publish, so many at a time."""
    print(json.dumps({"begin": time.monotonic()}), flush=True)

    async def some(number: int) -> None:
        for _ in range(number, count, TASKS):
            await publish()

    await asyncio.gather(*(some(number) for number in range(TASKS)))


async def publish_ketch(count: int, url: str) -> None:
    from ketch import Client, Topic

    async with Client.from_env(name="bench", broker=url, environ={}) as client:
        publisher = await client.publisher(Topic(TOPIC, Payload))
        await go(count, lambda: publisher.publish(USER))


async def publish_faststream_rabbitmq(count: int, url: str) -> None:
    from faststream.rabbit import RabbitBroker

    broker = RabbitBroker(f"amqp://guest:guest@{address(url)}/", logger=None)
    await broker.connect()
    headers = {name: value for name, value in HEADERS.items() if name != "content-type"}
    await go(count, lambda: broker.publish(USER.SerializeToString(), "bench.faststream", headers=headers, persist=True))
    await broker.stop()


async def publish_raw_rabbitmq(count: int, url: str) -> None:
    import aio_pika

    async with await aio_pika.connect(f"amqp://guest:guest@{address(url)}/") as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = channel.default_exchange

        def publish() -> Awaitable[Any]:
            message = aio_pika.Message(USER.SerializeToString(), headers=dict(HEADERS), delivery_mode=2)
            return exchange.publish(message, routing_key="bench.raw")

        await go(count, publish)


async def publish_faststream_kafka(count: int, url: str) -> None:
    from faststream.kafka import KafkaBroker

    broker = KafkaBroker(address(url), logger=None, acks="all")
    await broker.start()
    headers = {name: value for name, value in HEADERS.items() if name != "content-type"}
    await go(count, lambda: broker.publish(USER.SerializeToString(), TOPIC + ".faststream", headers=headers))
    await broker.stop()


async def publish_raw_kafka(count: int, url: str) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=address(url), acks="all")
    await producer.start()
    headers = [(name, value.encode()) for name, value in HEADERS.items()]
    await go(count, lambda: producer.send_and_wait(TOPIC + ".raw", USER.SerializeToString(), headers=headers))
    await producer.stop()


async def publish_faststream_redis(count: int, url: str) -> None:
    from faststream.redis import RedisBroker

    broker = RedisBroker(f"redis://{address(url)}", logger=None)
    await broker.connect()
    headers = {name: value for name, value in HEADERS.items() if name != "content-type"}
    await go(count, lambda: broker.publish(USER.SerializeToString(), stream="bench.faststream", headers=headers))
    await broker.stop()


async def publish_raw_redis(count: int, url: str) -> None:
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(f"redis://{address(url)}")
    await go(count, lambda: client.xadd("bench.raw", {**HEADERS, "data": USER.SerializeToString()}))
    await client.aclose()


async def publish_raw_jetstream(count: int, url: str) -> None:
    import nats

    connection = await nats.connect(f"nats://{address(url)}")
    stream = connection.jetstream()
    await go(count, lambda: stream.publish("raw.user", USER.SerializeToString(), headers=dict(HEADERS)))
    await connection.close()


def roles(role: str, broker: str, contender: str) -> Callable[..., Awaitable[None]]:
    """Return one of the functions above."""
    name = f"{role}_ketch" if contender == "ketch" else f"{role}_{contender.lower()}_{broker}"
    function: Callable[..., Awaitable[None]] = globals()[name]
    return function


# The rounds.


def measure(broker: str, contender: str, count: int, url: str) -> float:
    """Run one contender once; return its events per second."""
    subscriber = start("subscribe", broker, contender, count, url)
    try:
        line = subscriber.stdout.readline()
        if line.strip() != "ready":
            raise RuntimeError(f"{broker} {contender}: the subscriber said {line!r}")
        time.sleep(6.0 if broker == "kafka" else 0.5)  # FastStream and aiokafka are ready before their group is
        publisher = start("publish", broker, contender, count, url)
        begin = json.loads(publisher.stdout.readline())["begin"]
        report = json.loads(subscriber.stdout.readline())
        publisher.wait(60)
    finally:
        subscriber.send_signal(signal.SIGKILL)
        subscriber.wait(20)
    if report["seen"] < count:
        print(f"{broker} {contender}: only {report['seen']} of {count} events were handled", file=sys.stderr)
    return float(report["seen"] / (report["end"] - begin))


def start(role: str, broker: str, contender: str, count: int, url: str) -> subprocess.Popen[str]:
    """Start one of the two processes."""
    command = [sys.executable, __file__, "--role", role, "--broker", broker, "--contender", contender]
    command += ["--count", str(count), "--url", url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


async def run_rounds(brokers: list[str], rounds: int, seconds: float, jars: str) -> None:
    """Measure everyone, broker by broker, each time on a fresh server."""
    from ketch.testing.servers import kafka_server, nats_server, rabbitmq_server, redis_server

    servers = {
        "rabbitmq": rabbitmq_server,
        "kafka": lambda: kafka_server(jars),
        "redis": redis_server,
        "jetstream": lambda: nats_server(jetstream=True),
    }
    print(f"{'broker':12}{'contender':12}{'events/s':>10}{'x FastStream':>14}{'x raw':>8}")
    for broker in brokers:
        rates: dict[str, list[float]] = {contender: [] for contender in RATES[broker]}
        for _ in range(rounds):
            for contender, values in rates.items():
                async with servers[broker]() as server:
                    count = int(RATES[broker][contender] * seconds)
                    url = server.url.replace("redis://", "redis-streams://")
                    # As many partitions as the server gives the others' topics.
                    url += "?partitions=4" if broker == "kafka" else ""
                    values.append(await asyncio.to_thread(measure, broker, contender, count, url))
        medians = {contender: statistics.median(values) for contender, values in rates.items()}
        for contender, rate in medians.items():
            stream = medians.get("FastStream")
            over = f"{rate / stream:14.1f}" if stream else f"{'-':>14}"
            print(f"{broker:12}{contender:12}{rate:10,.0f}{over}{rate / medians['raw']:8.2f}", flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default=",".join(RATES))
    parser.add_argument("--kafka-jars", default="")
    for name in ("role", "broker", "contender", "url"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        play = roles(options.role, options.broker, options.contender)
        uvloop.run(play(Counter(options.count) if options.role == "subscribe" else options.count, options.url))
    else:
        asyncio.run(run_rounds(options.only.split(","), options.rounds, options.seconds, options.kafka_jars))


if __name__ == "__main__":
    main()
