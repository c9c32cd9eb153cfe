"""The verbs of stages two and three on the command line: parse, call, print."""
