"""The commands, one a file: each parses, calls one function, prints. They know no group.

Every import of torch, h5py and the like stands inside a command: its --help does not wait for them.
"""
