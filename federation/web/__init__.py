"""Pages on this machine: one hardened setup that every page is made with, and templates that escape every value.

`loopback` makes and serves an app, `guard` refuses requests that no page of ours sent, `connection` bounds what one
client may take, `markup` fills templates. What a page shows is its owner's affair, in another package.
"""
