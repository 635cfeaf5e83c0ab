"""The typed variant: the broker, whichever it is, hands over a `User`."""

import logging

from ketch import Service

from ..contract import user_created
from ..user.v1.user_pb2 import User

log = logging.getLogger("shippy.email_service")

service = Service("go.micro.srv.email", version="1.0.0")


@service.subscribe(user_created)
async def send_welcome(user: User) -> None:
    """Welcome a new user; instances of this service share the work."""
    log.info("Sending email to: %s", user.name)


def main() -> None:
    """Run until SIGTERM."""
    service.run()


if __name__ == "__main__":
    main()
