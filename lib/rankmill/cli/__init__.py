"""The command line: `rankmill COMMAND --flags`. Commands are thin; each builds its settings and makes one library call.

Heavy imports stay inside the commands, so that `--help` and mistakes in flags answer at once.
"""
