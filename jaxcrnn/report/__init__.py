"""Reports of runs and comparisons: tables, the HTML page, panels and charts."""
