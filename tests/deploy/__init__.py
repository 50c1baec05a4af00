"""What is in deploy/, read as data, by linters, and run as a container would run it."""
