"""A small nsqd for tests: `python -m ketch.testing.servers.nsqd --port 4150`.

What nsq.io documents and a plugin can notice is here: topics that wait for their first channel, channels and ephemeral
ones, messages in flight with their timeout and its limit, requeues now and later, ready counts, heartbeats, limits of
names and sizes, errors that end a connection and others that don't. It writes down what it has when it is told to end,
as nsqd does, and loses it when it is killed. TLS, compression, sampling, logins and HTTP are not here.

__main__.py     the process
client.py       one connection and its commands
channel.py      topics and channels
state.py        what is written down at the end
"""
