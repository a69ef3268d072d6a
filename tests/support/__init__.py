"""Helpers that tests share: servers, small models, plain reference implementations."""
