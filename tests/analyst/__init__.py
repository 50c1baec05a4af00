"""What an analyst asks, and what is made of the answer."""
