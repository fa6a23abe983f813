"""The decision log: who asked for whom, what, and what was answered."""
