"""The connection between a member and an aggregator: frames, sessions of calls, the handshake and addresses."""
