"""Named, versioned transforms of images, volumes and text."""
