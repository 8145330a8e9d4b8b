"""Measurements on devices elsewhere: asking and answering."""
