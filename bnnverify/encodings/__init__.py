"""Encodings of cardinality constraints for BDD packages and SAT solvers; each says whether it preserves counts."""
