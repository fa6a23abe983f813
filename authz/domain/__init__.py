"""The words of the service as values: no grpc, sqlalchemy, casbin, lmdb, clock or environment."""
