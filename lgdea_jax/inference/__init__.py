"""A trained model on images and volumes of your own."""
