"""The agent of a storage host: runs tasks of jobs where the objects lie."""
