"""Who is a member, and what goes over a connection."""
