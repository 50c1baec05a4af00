"""Web pages on this machine: one hardened setup for all of them, and templates that escape every value.

`loopback` makes and serves an app, `guard` refuses requests of foreign pages, `connection` limits each client,
`markup` fills templates. The content of a page is in the package that shows it.
"""
