"""`python -m jaxvff`."""

import sys

from jaxvff.cli.main import main

sys.exit(main())
