"""HTML pages of results, from templates; each page is one file that loads nothing from elsewhere."""
