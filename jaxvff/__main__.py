"""`python -m jaxvff`."""

from jaxvff.cli.program import program

program()
