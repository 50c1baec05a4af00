"""One secure sum, from the manifest to the opened report: docs/protocol.md sections 3 to 7."""
