"""The packed networks that a silo has: files, people's approvals of them, and what analysts send."""
