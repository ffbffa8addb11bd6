"""Programs that run a vendor's library, each startable in an environment of its own."""
