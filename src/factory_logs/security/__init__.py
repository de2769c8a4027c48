"""Who may do what: levels, passwords, tokens."""
