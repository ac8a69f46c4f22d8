"""The phantom world: synthetic chest radiographs with reports."""
