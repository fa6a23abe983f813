"""The gRPC face: a servicer a file, conversion, errors, and what is around every call."""
