"""What answers a question or takes a write: no grpc, no protobuf, no sql."""
