"""A small Consul agent, for tests: no wheel carries the real one, which `make interop` builds from its Go module.

It has what the registry `consul` uses: services with a TTL check, the list of services, the health of one, blocking
queries, a token. What it keeps outlives its end, as the state of an agent with a data directory does. It answers as
Consul 1.22 does, limits and refusals included; the same suite runs against both.
"""
