"""Readers of rosters and of lists of resources: files in, mutations and faults out."""
