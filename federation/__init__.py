"""What every role needs to run between organisations, and none of it is cryptography or policy.

`web` serves pages on this machine, `operations` is what an operator sees of a running party. It stands on `crypto` and
knows neither policies nor roles.
"""
