"""What a server serves beside what its service declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files import Files
from .health import health_servicer
from .reflection import PACKAGES, reflection_servicer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..health import Health
    from ..rpc import Servicer


def standard(servicers: Sequence[Servicer], health: Health, *, reflection: bool) -> list[Servicer]:
    """Return the health servicer and, if wanted, the reflection servicers; none that a service brings itself."""
    taken = {servicer.contract for servicer in servicers}
    more = [servicer for servicer in [health_servicer(health)] if servicer.contract not in taken]
    if reflection:
        told = [*servicers, *more]
        names = sorted({*(one.contract for one in told), *(f"{package}.ServerReflection" for package in PACKAGES)})
        files = Files(told)
        reflecting = [reflection_servicer(package, names, files) for package in PACKAGES]
        files.add(reflecting)
        more += [servicer for servicer in reflecting if servicer.contract not in taken]
    return more
