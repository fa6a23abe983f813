"""The command line: one command per file."""

ERROR_EXIT_CODE = 2

INTERRUPTED_EXIT_CODE = 130
"""As shells say it of a program that Ctrl-C ended."""
