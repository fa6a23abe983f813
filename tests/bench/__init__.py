"""What things cost. Run by `make bench`; nothing here is asserted."""
