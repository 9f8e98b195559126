"""Pure decisions and values: no sockets, no clock, no files."""
