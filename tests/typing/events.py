"""What a type checker must accept and refuse in a user's events; an ignore that isn't needed fails mypy itself."""

from dataclasses import dataclass

from ketch import Publisher, Service, Topic


@dataclass
class User:
    name: str


@dataclass
class Parcel:
    weight: int


user_created = Topic("user.created", User)
service = Service("typing")
created: Publisher[User] = service.publisher(user_created)


async def publish_what_fits() -> None:
    await created.publish(User("Ada"), metadata={"x-request-id": "1"})


async def publish_what_does_not_fit() -> None:
    await created.publish(Parcel(3))  # type: ignore[arg-type]
    await created.publish("Ada")  # type: ignore[arg-type]


@service.subscribe(user_created)
async def takes_the_user(user: User) -> None:
    print(user.name)


@service.subscribe(user_created, group="parcels", concurrency=4, timeout=1.5)  # type: ignore[arg-type]
async def takes_something_else(parcel: Parcel) -> None:
    print(parcel.weight)


@service.subscribe(user_created, group="sync")  # type: ignore[arg-type]
def is_not_async(user: User) -> None:
    print(user.name)
