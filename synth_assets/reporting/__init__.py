"""Documents, figures and display names."""
