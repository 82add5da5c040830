"""The trade-off between accuracy and cost: tables, intervals, figures."""
