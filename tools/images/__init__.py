"""The images: proved without a container engine, and their lock files written anew."""
