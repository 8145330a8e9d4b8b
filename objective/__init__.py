"""What a trial is and what it is worth: a leaf that every other room may import."""
