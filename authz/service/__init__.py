"""The gRPC face: a servicer a file, conversion, errors, interceptors."""
