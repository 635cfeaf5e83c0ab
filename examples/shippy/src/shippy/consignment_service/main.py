"""The program: it knows user-service by its contract and nothing else of it."""

from __future__ import annotations

from uuid import uuid4

from ketch import InvalidArgument, Service

from ..auth import require_token
from ..consignment.v1.consignment_ketch import ConsignmentService
from ..consignment.v1.consignment_pb2 import Consignment, CreateRequest, CreateResponse
from ..user.v1.user_ketch import UserServiceStub

_LONGEST = 1000


def _users() -> UserServiceStub:
    return users


service = Service("go.micro.srv.consignment", version="1.0.0", middleware=[require_token(_users)])
users: UserServiceStub = service.stub(UserServiceStub)


class Consignments(ConsignmentService):
    """Takes consignments in, and forgets them: this is an example of a door, not of a warehouse."""

    async def create(self, request: CreateRequest, /) -> CreateResponse:
        """Take one in."""
        if not 0 < len(request.description) <= _LONGEST or request.weight <= 0:
            raise InvalidArgument(f"a consignment has a description of 1 to {_LONGEST} characters and a weight above 0")
        fresh = Consignment(id=str(uuid4()), description=request.description, weight=request.weight)
        return CreateResponse(consignment=fresh)


service.serve(Consignments())


def main() -> None:
    """Run until SIGTERM."""
    service.run()


if __name__ == "__main__":
    main()
