"""Import and export of weights: layouts of other programs, importer, exporters and `Recognizer`."""
