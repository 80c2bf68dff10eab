"""Encoders with exits: their shape as plain data, and the models themselves."""
