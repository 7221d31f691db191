"""Models as polynomials: exact expansion of activation-free networks, refits, formulas."""
