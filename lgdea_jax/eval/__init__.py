"""One evaluation script per benchmark."""
