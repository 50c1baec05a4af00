"""What holds for the text of the product's code, read as syntax trees."""
