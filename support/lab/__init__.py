"""The instruments of the course."""
