"""Networks computed in a confined process of their own: what it gets, what it computes, and who starts it."""
