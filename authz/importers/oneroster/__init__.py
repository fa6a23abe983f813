"""Imports OneRoster 1.1 and 1.2: reads an export into a `Roster`, then plans it against the directory.

Source: 1EdTech, OneRoster CSV Binding 1.1.1 and 1.2.1.
"""

from __future__ import annotations
