"""The phantom CT world: synthetic chest volumes with reports."""
