"""What readers of official releases share."""
