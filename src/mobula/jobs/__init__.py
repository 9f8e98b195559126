"""Compute: who runs a job's tasks, and who sees to it that each of them counts once."""
