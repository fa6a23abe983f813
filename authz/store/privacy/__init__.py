"""Personal data: export, rename, erasure, holds and retention."""
