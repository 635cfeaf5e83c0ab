"""`python -m shippy.user_service.migrate`: bring the schema up to date without starting the service."""

from __future__ import annotations

import asyncio
import sys

from ketch import KetchError

from .config import database_url
from .database import open_database


def main() -> None:
    """Migrate; exit 1 when the database can't be used."""
    try:
        asyncio.run(_migrate())
    except KetchError as error:
        sys.exit(str(error))


async def _migrate() -> None:
    async with open_database(database_url()) as database:
        sys.stdout.write(f"{database.location} is up to date\n")


if __name__ == "__main__":
    main()
