"""Talking: HTTP, ZooKeeper, processes."""
