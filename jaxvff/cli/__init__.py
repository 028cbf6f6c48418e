"""The command line: `jaxvff train | evaluate | reproduce | stability | bench`."""
