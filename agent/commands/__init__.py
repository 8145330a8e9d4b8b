"""One file for each command of this room: plan, check, trial, measure, answer, doctor, cache."""
