"""`consilo demo`: a story with real public data and a whole federation on one machine."""
