"""The verbs of stage one on the command line: parse, call, print."""
