"""How a member and the aggregator reach each other: frames, sessions of calls, the handshake and addresses."""
