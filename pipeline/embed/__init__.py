"""Embedding: images and texts to vectors, each computed once and kept."""
