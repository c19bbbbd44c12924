"""The report of an evaluation: a page for the browser, and its pictures."""
