# SPDX-License-Identifier: Apache-2.0
"""``python -m perception``: the command line."""

import sys

from perception.cli.main import main

sys.exit(main())
