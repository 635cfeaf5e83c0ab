"""HTTP/2 (RFC 9113, RFC 7541) without IO: bytes in, method calls on streams, bytes out. No asyncio in here.

reader.py       bytes -> frames -> calls on the connection; preface, padding, CONTINUATION
connection.py   what each frame of a stream means
control.py      what each frame of the connection means
streams.py      the open streams: how they begin and how they end
past.py         what is remembered of those that ended
stream.py       one stream: what the layer above hears of it
windows.py      what the peer may send; grows with the speed of who reads
sender.py       what goes out: windows of the peer, frames of a size it takes, bounded output
compression.py  header blocks, with a cache of them
headers.py      whether a list of fields is a request or a response (RFC 9113 section 8)
settings.py     what either side allows
limits.py       what a peer may cost us
"""
