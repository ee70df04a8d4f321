"""The commands: each parses, calls one function, prints. They know no group."""
