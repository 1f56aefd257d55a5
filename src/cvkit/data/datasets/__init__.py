"""Dataset adapters, one a file."""
