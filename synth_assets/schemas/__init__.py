"""Table schemas and JSON records of everything that is stored. Import nothing of the project."""
