"""State machines of requests, without I/O."""
