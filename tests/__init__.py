"""What shows that the promises are kept? Stories that never sleep; see CONTRIBUTING.md for how to add one."""
