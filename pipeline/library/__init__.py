"""What programs use by `from pipeline import ...`: opening, measuring, losses by name."""
