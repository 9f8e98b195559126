"""Is a deployed region what its layout and its services' descriptions say? Judged here, in pure code; looked at by tests/conformance."""
