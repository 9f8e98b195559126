"""The object server of a storage host."""
