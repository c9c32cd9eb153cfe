"""Captions: one generator learned on captioned photos, for retrieval, captioning and questions."""
