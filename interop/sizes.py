"""The sizes that interop-test-descriptions.md names, and the metadata that servers send back."""

from typing import Final

LARGE_REQUEST: Final = 271_828
LARGE_REPLY: Final = 314_159
REQUESTS: Final = (27_182, 8, 1_828, 45_904)
REPLIES: Final = (31_415, 9, 2_653, 58_979)
INITIAL: Final = "x-grpc-test-echo-initial"
TRAILING: Final = "x-grpc-test-echo-trailing-bin"
SPECIAL: Final = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
#: `very_large_request` sends 10 MiB.
TRANSPORT: Final = "grpc://?max_message_size=16777216"
