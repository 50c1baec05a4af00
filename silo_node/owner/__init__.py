"""What a data owner does at the terminal and in the browser."""
