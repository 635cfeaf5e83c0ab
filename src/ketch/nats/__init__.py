"""NATS as a protocol: what a URL may say, and messages on the wire. The plugins on top: broker, registry, transport."""
