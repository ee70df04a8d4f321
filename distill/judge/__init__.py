"""How good a student is: the one evaluator, its embedding space, its outputs."""
