"""Registries on NATS: records in a bucket, and the services protocol of NATS's own tools."""

from .registry import NatsRegistry as NatsRegistry
