"""State: services and their checks, and a counter that grows with each change."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_REAP_LEAST = 60.0


@dataclass
class Service:
    """A registered service, and the state of its TTL check."""

    registration: dict[str, Any]
    ttl: float
    reap_after: float
    passing: bool
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.registration["Name"])


class State:
    """What the agent knows. `index` grows with each change, and `changed` is set then; `indexes` has it by name."""

    def __init__(self, file: Path) -> None:
        self.services: dict[str, Service] = {}
        self.index = 10
        self.indexes: dict[str, int] = {}
        self.changed = asyncio.Event()
        self._file = file
        self._saving: asyncio.TimerHandle | None = None

    def load(self) -> None:
        """Read what was kept; checks go on as they were."""
        if self._file.exists():
            for registration, passing in json.loads(self._file.read_text()):
                self._put(registration, passing=passing)

    def register(self, registration: dict[str, Any]) -> str:
        """Take a registration; return why it is refused, "" if it isn't."""
        meta = registration.get("Meta") or {}
        if not registration.get("Name"):
            return "Missing service name"
        if len(meta) > 64:
            return "Invalid Service Meta: Node metadata cannot contain more than 64 key/value pairs"
        for key, value in meta.items():
            if not _KEY.fullmatch(key) or len(value.encode()) > 512:
                return f"Invalid Service Meta: Couldn't load metadata pair ({key!r}, …)"
        self._put(registration, passing=(registration.get("Check") or {}).get("Status") == "passing")
        return ""

    def deregister(self, service_id: str) -> bool:
        """Forget a service; tell whether it was there."""
        service = self.services.pop(service_id.lower(), None)
        if service is not None:
            self._schedule(service, None)
            self._note(service)
        return service is not None

    def beat(self, check_id: str) -> bool:
        """Pass a check; tell whether it is there."""
        service = next((one for one in self.services.values() if _check(one) == check_id.lower()), None)
        if service is None:
            return False
        if not service.passing:
            service.passing = True
            self._note(service)
        self._schedule(service, service.ttl)
        return True

    def _put(self, registration: dict[str, Any], *, passing: bool) -> None:
        check = registration.get("Check") or {}
        ttl = seconds(check.get("TTL", "0s"))
        reap_after = max(_REAP_LEAST, seconds(check.get("DeregisterCriticalServiceAfter", "60s")))
        service_id = str(registration.get("ID") or registration["Name"]).lower()
        old = self.services.get(service_id)
        if old is not None:
            self._schedule(old, None)
            self._note(old)
        service = self.services[service_id] = Service(registration, ttl, reap_after, passing or not ttl)
        self._note(service)
        self._schedule(service, ttl or None)

    def _schedule(self, service: Service, seconds: float | None) -> None:
        if service.timer is not None:
            service.timer.cancel()
        loop = asyncio.get_running_loop()
        service.timer = None if seconds is None else loop.call_later(seconds, self._expire, service)

    def _expire(self, service: Service) -> None:
        if not service.passing:
            self.deregister(str(service.registration.get("ID") or service.name))
            return
        service.passing = False
        self._note(service)
        self._schedule(service, service.reap_after)

    def _note(self, service: Service) -> None:
        self.index += 1
        self.indexes[service.name.lower()] = self.index
        self.changed.set()
        self.changed = asyncio.Event()
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(0.1, self._save)

    def _save(self) -> None:
        self._saving = None
        kept = [(one.registration, one.passing) for one in self.services.values()]
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps(kept))
        draft.replace(self._file)


def _check(service: Service) -> str:
    check_id = (service.registration.get("Check") or {}).get("CheckID", "")
    return str(check_id or f"service:{service.registration.get('ID')}").lower()


def seconds(duration: str) -> float:
    """Return a duration as Go writes it: `1m5s`."""
    if re.fullmatch(r"([0-9.]+(ms|s|m|h))+", duration) is None:
        raise ValueError(f"{duration!r} is no duration")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", duration))
