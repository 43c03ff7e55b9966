"""What a search can be told: each option is declared once, for Python, command and files."""
