"""dns: instances as SRV, A and AAAA records tell them; what Kubernetes gives. Read only.

registry.py   watching; registering for this process alone
config.py     the URL's options
names.py      a service's name in DNS
lookup.py     instances of an SRV or an address query, through dnspython
"""

from .registry import DnsRegistry

__all__ = ["DnsRegistry"]
