"""One silo's part in a round, as pure steps: docs/protocol.md sections 3 to 6; section 8, tables A to E."""
