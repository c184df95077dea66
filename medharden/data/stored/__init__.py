"""The integers of a file, moved and written back: for attacks in stored values."""
