"""Stage one: class names become a bank of prompts, images a cache of features."""
