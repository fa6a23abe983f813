"""Where the contract is, for compilers of other languages."""

from __future__ import annotations

from pathlib import Path


def proto_directory() -> Path:
    """The folder that a protobuf compiler takes as its only include path.

    It holds `authz/v1/*.proto`, `google/rpc/status.proto`, `google/rpc/error_details.proto`, and
    `descriptor_set.binpb`: all of these and what they import, as a `google.protobuf.FileDescriptorSet`.
    """
    packaged = Path(__file__).parent.parent / "protos"
    return packaged if packaged.is_dir() else packaged.parent.parent / "protos"
