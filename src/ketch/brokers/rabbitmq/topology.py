"""What is declared at the server: the exchange, queues of groups and of single subscribers, and those that delay.

All is declared anew after each reconnection, since the server may come back empty; declaring what is there costs
nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from pamqp.commands import Exchange, Queue

from ...broker import DEAD_LETTERS
from .names import binding_key, escape, queue_name

if TYPE_CHECKING:
    from pamqp.base import Frame

#: Milliseconds that the queue of a subscription without a group outlives it: for a process that was killed, and for a
#: connection that is lost and comes back.
_ALONE_EXPIRES: Final = 60_000

#: Milliseconds that a queue that delays outlives its last event.
DELAY_EXPIRES: Final = 600_000

#: Queues that delay: each is for delays up to so many per cent above the one before, 2 ** (1 / 8).
_STEPS_PER_DOUBLING: Final = 8
_FIRST_STEP: Final = 100.0  # milliseconds

#: Confirmed between queues inside the server: what is put elsewhere isn't lost in the server's own crash.
_SAFE: Final = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
_QUORUM: Final = {"x-queue-type": "quorum"}


def exchange(name: str) -> list[Frame]:
    """Return what declares the exchange of all events."""
    return [Exchange.Declare(exchange=name, exchange_type="topic", durable=True)]


def group_queue(name: str, group: str, topic: str, delivery_limit: int) -> tuple[str, list[Frame]]:
    """Return the name of a group's queue and what declares it.

    Args:
        name: the exchange's.
        group: the group.
        topic: the topic or pattern.
        delivery_limit: deliveries after which a message goes to the dead letters, 0 for never.
    """
    frames = exchange(name)
    arguments: dict[str, object] = dict(_QUORUM)
    if delivery_limit and topic != DEAD_LETTERS:
        # They wait there, whether or not somebody looks after them.
        frames += _queue(name, queue_name(name, DEAD_LETTERS, DEAD_LETTERS), DEAD_LETTERS, dict(_QUORUM))
        arguments |= _SAFE
        arguments["x-delivery-limit"] = delivery_limit
        arguments["x-dead-letter-exchange"] = name
        arguments["x-dead-letter-routing-key"] = DEAD_LETTERS
    queue = queue_name(name, group, topic)
    return queue, frames + _queue(name, queue, topic, arguments)


def alone_queue(name: str, service: str, topic: str) -> tuple[str, list[Frame]]:
    """Return the name of a queue for one subscription, and what declares it."""
    # The server's own counter of deliveries is a quorum queue's, but a raft group for one process is too much.
    queue = f"{escape(name).replace('amq.', 'amq+2E', 1)}/{escape(service)[:100]}/{uuid4().hex}/alone"
    return queue, exchange(name) + _queue(name, queue, topic, {"x-expires": _ALONE_EXPIRES})


def _queue(name: str, queue: str, topic: str, arguments: dict[str, object]) -> list[Frame]:
    return [
        Queue.Declare(queue=queue, durable=True, arguments=arguments),  # type: ignore[arg-type]  # texts and numbers
        Queue.Bind(queue=queue, exchange=name, routing_key=binding_key(topic)),
    ]


def step(milliseconds: int) -> int:
    """Return up to how many milliseconds the queue for a delay is made for.

    Within one queue only the first event is looked at, so one that is due earlier waits for those before it, by the
    width of the step at most.
    """
    if milliseconds <= _FIRST_STEP:
        return int(_FIRST_STEP)
    number = math.ceil(math.log2(milliseconds / _FIRST_STEP) * _STEPS_PER_DOUBLING)
    upto = math.ceil(_FIRST_STEP * 2 ** (number / _STEPS_PER_DOUBLING))
    return max(upto, milliseconds)


def delay_name(name: str, upto: int, *, again: bool) -> str:
    """Return the name of a queue that delays, and of the exchange that leads to it."""
    return f"{name}.{'again' if again else 'later'}.{upto}"


def delay_queue(name: str, upto: int, *, again: bool) -> list[Frame]:
    """Return what declares a queue that delays.

    Args:
        name: the exchange's.
        upto: milliseconds.
        again: whether what is due goes back to the one queue that its routing key names, or to the exchange.
    """
    queue = delay_name(name, upto, again=again)
    arguments = {
        **_QUORUM,
        **_SAFE,
        "x-message-ttl": upto,
        "x-expires": upto + DELAY_EXPIRES,
        "x-dead-letter-exchange": "" if again else _due(name),
    }
    return [
        *([] if again else _due_exchange(name)),
        Exchange.Declare(exchange=queue, exchange_type="fanout", durable=True, auto_delete=True),
        Queue.Declare(queue=queue, durable=True, arguments=arguments),  # type: ignore[arg-type]  # texts and numbers
        Queue.Bind(queue=queue, exchange=queue),
    ]


def _due(name: str) -> str:
    return f"{name}.due"


def _due_exchange(name: str) -> list[Frame]:
    """Return what declares the way from the queues that delay to the exchange.

    At least once means for the server that it keeps what goes to no queue. What nobody subscribed to is to be gone, so
    all goes to a queue as well that keeps nothing.
    """
    due, nowhere = _due(name), f"{name}.due.nowhere"
    return [
        Exchange.Declare(exchange=due, exchange_type="topic", durable=True),
        Exchange.Bind(destination=name, source=due, routing_key="#"),
        Queue.Declare(queue=nowhere, durable=True, arguments={"x-message-ttl": 0, "x-max-length": 0}),
        Queue.Bind(queue=nowhere, exchange=due, routing_key="#"),
    ]
