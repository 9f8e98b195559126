"""The supervisor of jobs, on every api host."""
