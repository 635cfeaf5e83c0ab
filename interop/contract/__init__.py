"""The contract of gRPC's interop tests."""
