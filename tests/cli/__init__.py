"""Does the command `gossip` do what it says, with real processes, real nodes and a runtime directory of its own?"""
