"""Where the time of a call goes, on both sides, and what share of bare frames that leaves.

    python benchmarks/hotspots.py [--seconds 5] [--in-flight 64] [--rows 14]

ketch calls ketch as in `rpc.py`, both processes sample themselves (see `sampler.py`), and own time is printed by layer
and by function. In the same run the same calls without a sampler, and bare frames, are measured for the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import rpc
import uvloop
from beside import ask, serving
from sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterable

SIDES = ("server", "client")


async def serve(file: str) -> None:
    """Serve until told to end, and leave what was seen in a file."""
    over, sampler = asyncio.Event(), Sampler()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    address = await rpc.serve_ketch()
    sampler.start()
    print(address, flush=True)
    await over.wait()
    sampler.stop()
    save(sampler, file)


async def measure(address: str, in_flight: int, seconds: float, file: str) -> None:
    """Call, and leave what was seen in a file."""
    sampler = Sampler()
    sampler.start()
    await rpc.measure("ketch", address, in_flight, seconds)
    sampler.stop()
    save(sampler, file)


def save(sampler: Sampler, file: str) -> None:
    rows = [(layer, function, count) for (layer, function), count in sampler.table().items()]
    Path(file).write_text(json.dumps(rows))


# the parent


def sample(in_flight: int, seconds: float) -> tuple[float, dict[str, Counter[tuple[str, str]]]]:
    """Return calls a second, and the samples of each side by layer and function."""
    script = str(Path(__file__).resolve())
    with tempfile.TemporaryDirectory() as folder:
        files = {side: Path(folder, side) for side in SIDES}
        with serving(script, files["server"]) as (address, _):
            rate = ask(script, address, in_flight, seconds, files["client"])["rate"]
        seen = {side: json.loads(file.read_text()) for side, file in files.items()}
    return rate, {
        side: Counter({(layer, function): count for layer, function, count in rows}) for side, rows in seen.items()
    }


def table(heads: Iterable[str], rows: Iterable[tuple[str, ...]], *, words: int) -> None:
    """Print a table whose first columns are words and whose others are figures."""
    heads = list(heads)
    print("| " + " | ".join(heads) + " |")
    print("|" + " --- |" * words + " ---: |" * (len(heads) - words))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def show(seen: dict[str, Counter[tuple[str, str]]], rows: int) -> None:
    """Print own time by layer, and the functions with the most of it on either side."""
    total = {side: seen[side].total() for side in SIDES}
    layers = {side: Counter[str]() for side in SIDES}
    for side in SIDES:
        for (layer, _), count in seen[side].items():
            layers[side][layer] += count
    order = [layer for layer, _ in (layers["server"] + layers["client"]).most_common()]
    shares = [(layer, *(f"{layers[side][layer] / total[side]:.0%}" for side in SIDES)) for layer in order]
    table(("layer", *SIDES), shares, words=1)
    for side in SIDES:
        top = [
            (layer, f"`{function}`", f"{count / total[side]:.1%}")
            for (layer, function), count in seen[side].most_common(rows)
        ]
        table(("layer", f"the {side}'s functions ({total[side]:,} samples)", "own time"), top, words=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--rows", type=int, default=14)
    arguments = parser.parse_args()
    in_flight, span = arguments.in_flight, arguments.seconds / 3
    rates = {kind: [rpc.one(kind, kind, in_flight, span)["rate"]] for kind in ("bare", "ketch")}
    sampled, seen = sample(in_flight, arguments.seconds)
    for kind, found in rates.items():
        found.append(rpc.one(kind, kind, in_flight, span)["rate"])
    bare, ours = (sum(rates[kind]) / 2 for kind in ("bare", "ketch"))
    show(seen, arguments.rows)
    print(
        f"{ours:,.0f} calls/s, {sampled:,.0f} while sampled; bare frames {bare:,.0f}: {ours / bare:.2f} of it reached."
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        uvloop.run(measure(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]))
    else:
        main()
