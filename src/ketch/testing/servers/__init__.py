"""Real servers for tests, without Docker: from wheels or apt, on free loopback ports, in temporary folders.

    async with nats_server() as server:
        broker = NatsBroker.from_url(Url.parse(server.url))

Each is stopped by its process id when the block is left, killed if it doesn't obey.
"""

from .activemq import activemq_server
from .etcd import etcd_member, etcd_server
from .kafka import kafka_server
from .mosquitto import mosquitto_server
from .nats import nats_server
from .process import Server, free_port, program
from .rabbitmq import rabbitmq_server
from .redis import redis_server

__all__ = [
    "Server",
    "activemq_server",
    "etcd_member",
    "etcd_server",
    "free_port",
    "kafka_server",
    "mosquitto_server",
    "nats_server",
    "program",
    "rabbitmq_server",
    "redis_server",
]
