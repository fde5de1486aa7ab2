"""What does gossamesh cost, and what does that which people use today? README.md beside this says how to read it."""
