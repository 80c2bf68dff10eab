"""Accuracy and time of exported models. No torch."""
