"""Messages that come compressed."""

import gzip

import pytest

from ketch.errors import Internal
from ketch.grpc.compression import expand


@pytest.mark.parametrize("behind", [b"x", gzip.compress(b"second", mtime=0)])
def test_what_stands_behind_a_compressed_message_is_not_dropped_silently(behind):
    with pytest.raises(Internal):
        expand(gzip.compress(b"first") + behind, "gzip", 1000)
