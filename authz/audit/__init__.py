"""The decision log (caller, subject, question, answer), and signed checkpoints of the change log."""
