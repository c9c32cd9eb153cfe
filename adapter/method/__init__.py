"""The method itself: tensors in, tensors out; nothing here knows data sets, files or tables."""
