"""What the programs share: the topics. It imports nothing but the generated messages."""

from __future__ import annotations

from typing import Final

from ketch import Topic

from .user.v1.user_pb2 import User

#: A user was stored. It carries the user without a password; its header `id` is the user's id.
user_created: Final = Topic("user.created", User)
