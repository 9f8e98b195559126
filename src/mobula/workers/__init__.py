"""Background work on the shards, by whoever has a shard's lease."""
