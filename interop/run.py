"""Run every suite of this folder; `make interop`. The exit code is 1 if any of them failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: What is run, as far as it is there.
SUITES = ("h2spec", "languages", "conformance", "pubsub", "nsq", "kafka", "consul", "nats_services", "gomicro")


def main() -> int:
    """Return the exit code."""
    codes: dict[str, int] = {}
    for name in SUITES:
        script = HERE / f"{name}.py"
        if script.exists():
            print(f"== {name}", flush=True)
            codes[name] = subprocess.run((sys.executable, str(script)), check=False).returncode
    print("\n| suite | result |\n| --- | --- |")
    for name, code in codes.items():
        print(f"| {name} | {'FAILED' if code else 'passed'} |")
    return 1 if any(codes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
