"""What is counted and measured: a leaf that every layer may use."""
