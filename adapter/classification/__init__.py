"""Classification: what is trained on and tested, by which rule, and the table that comes of it."""
