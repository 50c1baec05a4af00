"""Models as they leave a silo or are shown: what was fitted, the portable form, how it scores rows, and the card."""
