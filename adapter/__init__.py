"""Stages two and three: an adapter is trained, evaluated by a protocol, and used on new photos."""
