"""Registry `mdns`: a local network without any server (RFC 6762, RFC 6763).

registry.py    the plugin: what is registered is announced, what is heard is kept until its time is over
answering.py   what is told to those who ask
packet.py      DNS messages, read and written
ether.py       the sockets
forms.py       what a record looks like on the wire: `ketch` (DNS-SD); `go-micro` is in gomicro_form.py
cache.py       what was heard, and until when
"""

from .registry import MdnsRegistry as MdnsRegistry
