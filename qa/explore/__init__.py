"""What is in a data set: survey.py counts, numbers.py lists, charts.py draws, page.py shows."""
