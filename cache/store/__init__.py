"""What lies on the disk: the manifest, shards, text banks, neighbours. No torch."""
