"""Composes and runs the processes of the service."""
