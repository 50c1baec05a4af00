"""Networks as data: graphs of listed calls, what they take to compute, and the algorithms that train them."""
