"""What the measurements say: curves, tables, tests, figures. No torch."""
