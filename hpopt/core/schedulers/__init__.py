"""Who may go on: the early-stopping rules."""
