"""What is installed, and with what."""
