"""Empty: kept because programs import it."""
