"""Read rosters and lists of resources: files in, mutations and faults out."""
