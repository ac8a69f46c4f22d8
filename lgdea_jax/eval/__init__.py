"""One binary per benchmark."""
