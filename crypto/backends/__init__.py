"""How a blinded vector travels and is added; docs/backends.md. Empty, so that a sandboxed worker imports little."""
