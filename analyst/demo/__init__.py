"""`consilo demo`: real public data, a whole federation on one machine, one story."""
