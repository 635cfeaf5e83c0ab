"""The tables as the code sees them; the migrations make them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

#: An id that grows: SQLite counts up by itself only if it is called INTEGER.
_serial = BigInteger().with_variant(Integer, "sqlite")

users = Table(
    "users",
    metadata,
    Column("position", _serial, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("company", String(200), nullable=False),
    Column("email", String(254), nullable=False),
    # The e-mail as it is compared: one person doesn't get two accounts by writing it in capitals.
    Column("email_key", String(512), nullable=False, unique=True),
    Column("password_hash", String(256), nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("position", _serial, primary_key=True, autoincrement=True),
    Column("body", LargeBinary, nullable=False),
    # Seconds since 1970: until then one relay has it in hand.
    Column("claimed_until", Float, nullable=False, server_default="0"),
)
