"""`python -m jaxvff.cli`."""

import sys

from jaxvff.cli.main import main

sys.exit(main())
