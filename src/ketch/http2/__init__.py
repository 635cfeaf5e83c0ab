"""HTTP/2 (RFC 9113, RFC 7541) without IO: bytes in, method calls on streams, bytes out. No asyncio in here.

reader.py       bytes -> frames -> calls on the connection; preface, padding, CONTINUATION
connection.py   what each frame means; the life of streams
stream.py       one stream: its windows, and what the layer above hears of it
sender.py       what goes out: windows of the peer, frames of a size it takes, bounded output
compression.py  header blocks, with a cache of them
headers.py      whether a list of fields is a request or a response (RFC 9113 section 8)
settings.py     what either side allows
limits.py       what a peer may cost us
"""
