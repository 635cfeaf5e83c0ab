"""The Redis protocol (RESP), for the plugins that speak it; no plugin itself.

connection.py   one connection: commands out, replies in, many on their way at the same time
link.py         a connection that is made again, for ever
config.py       what the URL of a Redis server says
refusal.py      the server's errors, as ours

The parser and the packer are hiredis's; why the rest isn't redis-py's is in docs/decisions, "Redis".
"""
