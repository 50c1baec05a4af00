"""What the silo's owner sees and does: the page on this machine."""
