"""`python -m jaxvff.cli`."""

from jaxvff.cli.program import program

program()
