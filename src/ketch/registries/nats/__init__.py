"""Registries on NATS: records in a bucket, NATS's own services protocol, and go-micro's."""

from .registry import NatsRegistry as NatsRegistry
from .registry import NatsServicesRegistry as NatsServicesRegistry
