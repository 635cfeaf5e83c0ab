"""Workers: several processes of a service on one machine, that share a port and are watched over.

supervisor.py   Supervisor: starts workers, restarts, reloads and stops them
slot.py         Slot: one worker's place, its restarts and their backoff
process.py      Process: one worker's process, as the supervisor sees it
worker.py       what runs in that process
link.py         what they say to each other, and how sockets are handed over
sockets.py      Sockets: what workers listen on together
reports.py      Report: how one worker is; Status: how all of them are
tally.py        Tally: figures of all workers, those that have gone included
prometheus.py   figures as text
web.py          Web: the HTTP endpoint for them
console.py      the socket that `ketch workers` asks
say.py          what it prints
changes.py      Changes: which file has changed
"""
