"""The library by which services and ops reach the shards."""
