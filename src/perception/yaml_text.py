# SPDX-License-Identifier: Apache-2.0
"""YAML from files that anybody may have written."""

from __future__ import annotations

from typing import Any

import yaml


def load_yaml(text: str) -> Any:
    """As ``yaml.safe_load``, with one error for all that may be wrong: endless nesting, numbers that are none.

    Raises:
        yaml.YAMLError: the text is no YAML.
    """
    try:
        return yaml.safe_load(text)
    except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error
