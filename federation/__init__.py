"""What every role needs to run between organisations, and none of it is cryptography or policy.

`members` says who belongs, `transport` carries calls between members, `operations` runs a party's own processes and
shows them to its operator, `web` serves pages on this machine. It stands on `crypto` and knows neither policies nor
roles.
"""
