"""One pipeline for every call, whatever the transport."""
