"""Store: users in the database, and the events that wait beside them."""

from __future__ import annotations

import time
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ketch import AlreadyExists

from ..user.v1.user_pb2 import User
from .tables import outbox, users

if TYPE_CHECKING:
    from sqlalchemy import Row

    from .database import Database

_PUBLIC = (users.c.position, users.c.id, users.c.name, users.c.company, users.c.email)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event in the outbox."""

    position: int
    user: User


class Store:
    """Users by id, e-mail and in the order of their creation. What it returns never holds a password or hash."""

    def __init__(self, database: Database, *, outbox: bool = False) -> None:
        self._database = database
        self._outbox = outbox

    async def add(self, name: str, company: str, email: str, password_hash: str) -> User:
        """Store a user under a fresh id, and with it the event where there is an outbox; at return it is committed.

        Raises:
            AlreadyExists: the e-mail is taken, in whatever case.
            Unavailable: the database can't be reached.
        """
        user = User(id=str(uuid4()), name=name, company=company, email=email)
        row = {"id": user.id, "name": name, "company": company, "email": email}
        try:
            async with self._database.transaction() as connection:
                await connection.execute(
                    insert(users).values(row | {"email_key": _key(email), "password_hash": password_hash})
                )
                if self._outbox:
                    await connection.execute(insert(outbox).values(body=user.SerializeToString()))
        except IntegrityError:
            # From nothing: the driver's error shows the row, which holds the hash.
            raise AlreadyExists(f"there is a user with the e-mail {email} already") from None
        return user

    async def find(self, user_id: str) -> User | None:
        """Return the user of an id."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(*_PUBLIC).where(users.c.id == user_id))).first()
        return None if row is None else _user(row)

    async def credentials(self, email: str) -> tuple[str, str] | None:
        """Return id and password hash of the user with an e-mail."""
        query = select(users.c.id, users.c.password_hash).where(users.c.email_key == _key(email))
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else (row.id, row.password_hash)

    async def page(self, after: int, size: int) -> tuple[list[User], int]:
        """Return at most `size` users behind position `after`, and the position of the last; 0 when none follows."""
        query = select(*_PUBLIC).where(users.c.position > after).order_by(users.c.position).limit(size + 1)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        return [_user(row) for row in rows[:size]], rows[size - 1].position if len(rows) > size else 0

    async def replace_hash(self, user_id: str, old: str, new: str) -> None:
        """Replace a password's hash, unless it was changed meanwhile."""
        change = update(users).where(users.c.id == user_id, users.c.password_hash == old).values(password_hash=new)
        async with self._database.transaction() as connection:
            await connection.execute(change)

    async def claim(self, seconds: float) -> Waiting | None:
        """Take the oldest waiting event in hand for some seconds; whoever took it and died has lost it after them."""
        now = time.time()
        free = outbox.c.claimed_until < now
        oldest = select(func.min(outbox.c.position)).where(free).scalar_subquery()
        change = update(outbox).where(outbox.c.position == oldest, free).values(claimed_until=now + seconds)
        async with self._database.transaction() as connection:
            row = (await connection.execute(change.returning(outbox.c.position, outbox.c.body))).first()
        return None if row is None else Waiting(row.position, User.FromString(row.body))

    async def release(self, position: int) -> None:
        """Give a claimed event back: it was not published."""
        async with self._database.transaction() as connection:
            await connection.execute(update(outbox).where(outbox.c.position == position).values(claimed_until=0))

    async def published(self, position: int) -> None:
        """Remove an event that was published."""
        async with self._database.transaction() as connection:
            await connection.execute(delete(outbox).where(outbox.c.position == position))


def _key(email: str) -> str:
    return unicodedata.normalize("NFKC", email).casefold()


def _user(row: Row[*tuple[Any, ...]]) -> User:
    return User(id=row.id, name=row.name, company=row.company, email=row.email)
