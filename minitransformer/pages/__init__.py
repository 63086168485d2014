"""Pages that are one HTML file, their charts, and finished runs to show in them."""
