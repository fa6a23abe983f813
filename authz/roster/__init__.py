"""Readers of rosters and lists of resources: files in, mutations and row faults out."""
