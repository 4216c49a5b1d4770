# SPDX-License-Identifier: Apache-2.0
"""The command line: one file per command, each with ``add_parser(subparsers)`` and ``run(arguments)``."""
