"""The gRPC face: a servicer a file, and the adapter that carries their calls."""
