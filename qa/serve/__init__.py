"""A page to ask a model on: reader.py answers, server.py speaks HTTP, page.html is what the browser shows."""
