"""What is printed: no markup, no control characters, no credentials."""
