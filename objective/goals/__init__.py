"""What a candidate is worth: goal, score, Pareto front, statistics."""
