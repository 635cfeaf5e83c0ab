"""consul: instances as services of a Consul agent, kept by heartbeats, watched by blocking queries.

registry.py   registering, watching, opening, closing
config.py     the URL's options
agent.py      HTTP to the agent, through aiohttp: bounded in time and size
polls.py      blocking queries, each shared by all that want its answer
entries.py    an instance as a Consul service, and back
gomicro.py    the same as go-micro does it
"""

from .registry import ConsulRegistry

__all__ = ["ConsulRegistry"]
