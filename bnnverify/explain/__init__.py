"""Why this class? Inputs that force it (prime implicants), and inputs that it always has (essential features).

Both are statements about the whole region, not about samples of it. A prime implicant is also called an abductive or
PI explanation.

References:
    Shih, Choi & Darwiche, IJCAI 2018 (PI explanations). Ignatiev, Narodytska & Marques-Silva, AAAI 2019 (abductive
    explanations by deletion). The search for a minimal set is that for a minimal unsatisfiable subset: Marques-Silva,
    Janota & Belov, CAV 2013.
"""

from __future__ import annotations

from bnnverify.explain.checking import ExplanationCheck, check_explanation, explanation
from bnnverify.explain.essential import essential_features
from bnnverify.explain.implicants import ORDERS, prime_implicant

__all__ = ["ORDERS", "ExplanationCheck", "check_explanation", "essential_features", "explanation", "prime_implicant"]
