"""DNS from ZooKeeper registrations, and the registrar."""
