"""The command line, a command a file."""

ERROR_EXIT_CODE = 2
