"""What does gossamesh look like in a program? Each folder here is one that runs."""
