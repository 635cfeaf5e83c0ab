"""etcd: instances as keys of an etcd cluster (API v3 over gRPC), kept by a lease and watched from a revision on.

registry.py    registering, watching, opening
records.py     what this process has registered: a lease, and the keys that live by it
following.py   a name's instances: read at one revision, watched from the next
layout.py      which keys an instance has, and what is in them
link.py        calls to whichever member of the cluster answers
access.py      who we are: the token that a password is exchanged for
config.py      the URL's options
etcd.proto     etcd's messages
"""

from .registry import EtcdRegistry

__all__ = ["EtcdRegistry"]
