"""The gRPC face: a servicer a file."""
