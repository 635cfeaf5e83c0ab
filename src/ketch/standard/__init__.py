"""Services that every gRPC server is expected to have: health and reflection.

grpc/…                 their contracts, as published with gRPC
contracts.binpb        the same, compiled: `make generate` writes it
messages.py            their messages, in a pool of their own
health.py              grpc.health.v1
reflection.py          grpc.reflection.v1 and v1alpha
files.py               which .proto files reflection tells of
"""
