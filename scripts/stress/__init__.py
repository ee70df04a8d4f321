"""What is done to distill on purpose: faults, fuzzed files, load."""
