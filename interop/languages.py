"""Run gRPC's interop cases between ketch and the official programs of other languages, both ways.

    python interop/languages.py [--write] [--only go]

Prints a table, and what a case that failed has said; the exit code is 1 if any did. `--write` puts the table into
docs/interop.md.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from cases import CASES
from peers import KEPT, KETCH, ROOT, Peer, peers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE: Final = ROOT / "docs" / "interop.md"
BEGIN: Final = "<!-- languages: written by interop/languages.py --write -->"
END: Final = "<!-- end -->"
PASSED: Final = "passed"
SECURITY: Final = {"Plain text": False, "TLS": True}
NOT_RUN: Final = "not run"
#: Seconds for one case, and for a server to listen.
LIMIT: Final = 180
START: Final = 30.0

Results = dict[str, dict[str, str]]


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/interop.md")
    parser.add_argument("--only", default="", help="part of a peer's name")
    arguments = parser.parse_args()
    chosen = [peer for peer in peers() if arguments.only in peer.name]
    failures: list[str] = []
    tables = [f"### {name}\n\n{render(run(chosen, failures, tls=tls))}" for name, tls in SECURITY.items()]
    page = "\n".join([*tables, "### Not run\n", notes(chosen)])
    print(page)
    sys.stdout.writelines(f"\n{failure}\n" for failure in failures)
    if arguments.write:
        write(page)
    return 1 if failures else 0


def run(chosen: Sequence[Peer], failures: list[str], *, tls: bool) -> Results:
    """Run all cases between us and each peer, both ways."""
    results: Results = {case: {} for case in CASES}
    with serving(KETCH, tls=tls) as port:
        for peer in chosen:
            for case in CASES:
                results[case][f"{peer.name} to ketch"] = judge(peer, peer.client_lacks, case, port, failures, tls=tls)
    for peer in chosen:
        if peer is KETCH:
            continue
        with serving(peer, tls=tls) as port:
            for case in CASES:
                results[case][f"ketch to {peer.name}"] = judge(KETCH, peer.server_lacks, case, port, failures, tls=tls)
    return results


@contextlib.contextmanager
def serving(peer: Peer, *, tls: bool) -> Iterator[int]:
    """Run a server; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with (KEPT / f"{peer.name.split(maxsplit=1)[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            (*peer.server, *peer.flags(client=False, tls=tls), f"--port={port}"), stdout=log, stderr=log
        )
        try:
            wait_for(process, port)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a server listens."""
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise SystemExit(f"{process.args!r} does not listen on port {port}; its log is in {KEPT.name}/")


def judge(client: Peer, lacks: dict[str, str], case: str, port: int, failures: list[str], *, tls: bool) -> str:
    """Run a client's case against a port; return what the table says of it."""
    if case in lacks:
        return NOT_RUN
    program = (*client.client, *client.flags(client=True, tls=tls))
    command = (*program, "--server_host=127.0.0.1", f"--server_port={port}", f"--test_case={case}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        failures.append(f"{command!r}: no end after {LIMIT} s")
        return "FAILED"
    if done.returncode:
        failures.append(f"{command!r}:\n{(done.stdout + done.stderr)[-4000:]}")
        return "FAILED"
    return PASSED


def render(results: Results) -> str:
    """Return the table."""
    columns = list(next(iter(results.values())))
    lines = [f"| case | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    lines += [f"| {case} | {' | '.join(row[column] for column in columns)} |" for case, row in results.items()]
    return "\n".join(lines) + "\n"


def notes(chosen: Sequence[Peer]) -> str:
    """Return why cases aren't run."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for peer in chosen:
        for side, lacks in (("client", peer.client_lacks), ("server", peer.server_lacks)):
            for case, reason in lacks.items():
                reasons.setdefault((f"{peer.name}'s {side}", reason), []).append(case)
    lines = [f"- {', '.join(cases)}: {who}: {reason}." for (who, reason), cases in reasons.items()]
    return "\n".join(lines) + "\n"


def write(table: str) -> None:
    """Put the table into the page."""
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{table}\n{END}{rest.split(END, 1)[1]}")


if __name__ == "__main__":
    sys.exit(main())
