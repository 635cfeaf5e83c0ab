"""user-cli: creates a user, shows them all, signs in."""
