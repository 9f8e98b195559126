"""`make bench`: us, OpenStack Swift and SeaweedFS side by side on this machine (docs/bench.md)."""
