"""Machines, networks and faults of the lab."""
