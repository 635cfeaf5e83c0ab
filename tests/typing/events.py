"""What a type checker must accept and refuse in a user's events; an ignore that isn't needed fails mypy itself."""

from dataclasses import dataclass

from ketch import Publisher, Requester, RequestTopic, Service, Topic


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


@service.subscribe(user_created, group="batches", batch=100, within=0.5)
async def takes_many(users: list[User]) -> None:
    print(len(users))


@service.subscribe(user_created, group="one-by-one", batch=100)  # type: ignore[arg-type]
async def takes_one_though_it_gets_many(user: User) -> None:
    print(user.name)


@service.subscribe(user_created, group="by-name", concurrency=8, order_by=lambda user: user.name)
async def takes_in_order_by_name(user: User) -> None:
    print(user.name)


service.subscribe(user_created, group="by-weight", order_by=lambda user: user.weight)  # type: ignore[attr-defined]

weigh = RequestTopic("weigh", Parcel, User)
scale: Requester[Parcel, User] = service.requester(weigh)


@service.reply(weigh)
async def weighs(parcel: Parcel) -> User:
    return User(str(parcel.weight))


@service.reply(weigh, group="wrong")  # type: ignore[arg-type]
async def answers_with_something_else(parcel: Parcel) -> Parcel:
    return parcel


async def request_what_fits() -> str:
    return (await scale.request(Parcel(3), timeout=1.0)).name


async def request_what_does_not_fit() -> None:
    await scale.request(User("Ada"))  # type: ignore[arg-type]
