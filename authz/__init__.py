"""Course-scoped access control: who may do what with which content, and why."""

__version__ = "0.1.0"
