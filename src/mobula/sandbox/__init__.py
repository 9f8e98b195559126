"""Sandboxes: other people's commands on a storage host, seeing nothing but what they were given (docs/decisions/0012)."""
