"""redis: instances in Redis, each with its time to live by the server's clock, changes told over its channels.

registry.py    registering, watching, opening
records.py     what this process has registered, written again before it runs out
following.py   a name's instances: read once, then kept current by what is told
listening.py   the connection over which changes are told
shelf.py       where instances are filed: the keys and the channel of one name
scripts.py     what the server does in one step
store.py       calls to the server, each within its time, with errors as ours
config.py      the URL's options
"""

from .registry import RedisRegistry

__all__ = ["RedisRegistry"]
