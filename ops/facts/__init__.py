"""What is read off a running host: a script that runs there and prints JSON, and its typed reading here."""
