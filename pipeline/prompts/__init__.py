"""Prompts: what is asked of a language model, how, and which of its answers are kept."""
