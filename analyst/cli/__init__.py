"""The command `consilo`: one module for the parser and one for each family of commands."""
