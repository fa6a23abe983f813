"""What is in `deploy/`, held to the service."""
