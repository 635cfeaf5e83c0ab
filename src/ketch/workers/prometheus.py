"""Prometheus: a status as text, in Prometheus's exposition format 0.0.4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .reports import Status

#: `Content-Type` of the format.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = dict[str, str]


def text(status: Status) -> str:
    """Return all figures. Counters never fall while the supervisor lives: processes that have gone still count."""
    base = {"service": status.service}
    return "".join([*_workers(status, base), *_methods(status, base), *_topics(status, base)])


def _workers(status: Status, base: Labels) -> Iterator[str]:
    # While workers are replaced there are two of a number; the first is the one in its place.
    places = {line.number: line for line in reversed(status.workers) if line.state != "stopping"}
    lines = [({**base, "worker": str(number)}, line) for number, line in sorted(places.items())]
    yield from _metric("ketch_workers_serving", "gauge", "Workers that do their work.", [(base, status.serving)])
    yield from _metric("ketch_reloads_total", "counter", "Times all were replaced.", [(base, status.reloads)])
    yield from _metric(
        "ketch_worker_serving",
        "gauge",
        "1 where this worker does its work.",
        [(labels, int(line.state == "serving")) for labels, line in lines],
    )
    yield from _metric(
        "ketch_worker_restarts_total", "counter", "Deaths.", [(labels, line.restarts) for labels, line in lines]
    )
    yield from _metric(
        "ketch_worker_uptime_seconds", "gauge", "Since it was started.", [(lb, line.uptime) for lb, line in lines]
    )
    yield from _metric(
        "ketch_worker_memory_bytes", "gauge", "Resident memory.", [(labels, line.memory) for labels, line in lines]
    )
    yield from _metric(
        "ketch_worker_cpu_seconds", "gauge", "Processor time of this process.", [(lb, line.cpu) for lb, line in lines]
    )


def _methods(status: Status, base: Labels) -> Iterator[str]:
    methods = [({**base, "method": method.method}, method) for method in status.stats.methods]
    yield from _metric(
        "ketch_calls_total", "counter", "Calls that have ended.", [(lb, one.calls) for lb, one in methods]
    )
    yield from _metric(
        "ketch_calls_failed_total",
        "counter",
        "Of these, those that failed, by status.",
        [({**lb, "status": name}, count) for lb, one in methods for name, count in sorted(one.failures.items())],
    )
    yield from _metric(
        "ketch_call_seconds_total", "counter", "What they took together.", [(lb, one.seconds) for lb, one in methods]
    )
    yield from _metric("ketch_calls_running", "gauge", "Calls in hand.", [(lb, one.running) for lb, one in methods])


def _topics(status: Status, base: Labels) -> Iterator[str]:
    topics = [
        ({**base, "topic": one.topic, "group": one.group or "", "handler": one.handler}, one)
        for one in status.stats.topics
    ]
    for name, help_, kind in (
        ("handled", "Events that a handler has finished with.", "counter"),
        ("failed", "Tries that failed.", "counter"),
        ("retried", "Failed tries that another one followed.", "counter"),
        ("dead", "Events given up.", "counter"),
        ("running", "Handlers that run.", "gauge"),
    ):
        whole = f"ketch_events_{name}" + ("_total" if kind == "counter" else "")
        yield from _metric(whole, kind, help_, [(labels, getattr(one, name)) for labels, one in topics])
    yield from _metric(
        "ketch_event_seconds_total", "counter", "Spent on handling.", [(lb, one.seconds) for lb, one in topics]
    )


def _metric(name: str, kind: str, about: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    head = f"# HELP {name} {about}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"{head}{name}{{{inside}}} {value}\n"
        head = ""


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
