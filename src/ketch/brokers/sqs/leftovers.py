"""Leftovers: queues of subscriptions without a group whose process ended without deleting them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ...errors import BrokerError
from .names import lone_prefix
from .place import ALIVE, LEADS_HERE, Place, remove

if TYPE_CHECKING:
    from .aws import Aws

log = logging.getLogger("ketch.broker")

#: Seconds after which a queue whose process said nothing counts as left over.
AGE = 3600.0

#: Queues that are looked at, at a time.
_QUEUES = 50


async def remove_leftovers(aws: Aws, age: float = AGE) -> None:
    """Delete queues that were left over, as far as we may; what we may not stays and costs nothing but its name."""
    try:
        found = await aws.call("sqs", "list_queues", QueueNamePrefix=lone_prefix(aws.config.prefix), MaxResults=_QUEUES)
        for url in found.get("QueueUrls", ()):
            await _judge(aws, url, age)
    except BrokerError as error:
        log.info("sqs: queues that crashed processes left over stay: %s", error)


async def _judge(aws: Aws, url: str, age: float) -> None:
    tags = (await aws.call("sqs", "list_queue_tags", QueueUrl=url)).get("Tags", {})
    seen = tags.get(ALIVE, "")
    if seen.isdigit() and time.time() - int(seen) > age and LEADS_HERE in tags:
        await remove(aws, Place(url, tags[LEADS_HERE]))
        log.info("sqs: deleted %s, which a crashed process had left over", url.rpartition("/")[2])
