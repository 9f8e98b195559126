"""The pool agent of a storage host: looks at every disk, brings in spares, takes in new disks, scrubs."""
