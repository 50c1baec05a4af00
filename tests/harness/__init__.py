"""What tests stand on: federations in memory, over streams, of many silos, and how each is provisioned."""
