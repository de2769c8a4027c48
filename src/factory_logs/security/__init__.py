"""Authentication and authorisation: permission levels, passwords, tokens, login."""
