"""Is a handler fit for its topic? Asked once, where it is registered."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from .errors import HandlerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .topic import Topic


def check_handler(topic: Topic[Any], handler: Callable[..., Any], *, batch: bool = False) -> None:
    """Check that a handler is async and takes one payload of the topic's type, or a list of them.

    Raises:
        HandlerError: it isn't, or doesn't; the message says what to change.
    """
    name = getattr(handler, "__qualname__", repr(handler))
    if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - the method is wanted, not whether there is one
    ):
        raise HandlerError(f"{name} can't handle {topic.name}: write it as `async def`")
    try:
        signature = inspect.signature(handler)
        signature.bind(object())
    except TypeError:
        raise HandlerError(
            f"{name} can't handle {topic.name}: it must take one argument, "
            f"the {f'list[{topic.type.__qualname__}]' if batch else topic.type.__qualname__}"
        ) from None
    first = next(iter(signature.parameters.values()))
    said = _annotation(handler, first)
    if batch:
        if isinstance(said, type) and get_origin(said) is None and not issubclass(list, said):
            raise HandlerError(f"{name} takes a {said.__qualname__}, but gets a list[{topic.type.__qualname__}]")
    elif said is not None and not _fits(topic.type, said):
        shown = getattr(said, "__qualname__", said)
        raise HandlerError(f"{name} takes a {shown}, but {topic.name} carries {topic.type.__qualname__}")


def _annotation(handler: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    if parameter.annotation is inspect.Parameter.empty:
        return None
    try:
        return get_type_hints(handler).get(parameter.name)
    except (NameError, TypeError, AttributeError):
        # Imported for type checkers only: the name is all there is to go by.
        return str(parameter.annotation)


def _fits(type_: type, said: Any) -> bool:
    if isinstance(said, str):
        return said.rpartition(".")[2].partition("[")[0] == type_.__qualname__.rpartition(".")[2]
    if not isinstance(said, type):
        return True  # a union, a generic, Any: the type checker's business
    return issubclass(type_, said)
