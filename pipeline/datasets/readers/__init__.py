"""Readers: one a layout or format in which photos, captions and questions lie on disk."""
