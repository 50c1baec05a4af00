"""The five backends: how a blinded vector travels and is added (docs/backends.md).

This file imports nothing, so that a sandboxed worker loads little.
"""
