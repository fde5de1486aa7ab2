"""What does gossamesh cost, and what do the things cost that people use today? README.md beside this says how to read it."""
