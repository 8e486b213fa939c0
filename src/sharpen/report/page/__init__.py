"""The page of a run: its data, and the HTML file that shows it."""
