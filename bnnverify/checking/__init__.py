"""Checks evidence with nothing but the definition of networks and questions: no engine is trusted."""
