"""The testing kit: `run`, and the suites that every plugin must pass."""
