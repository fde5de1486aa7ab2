"""The protocol as state machines: no loop, socket, clock or chance of its own.

Start reading at `engine`: it routes. Each other file decides one thing and calls none of its neighbours.
"""
