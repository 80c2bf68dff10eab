"""From measurements to answers: tables, estimates, figures. No torch."""
