"""What the program prints and logs, and what must not appear in it."""
