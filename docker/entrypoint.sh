#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command in the built workspace.
set -e
source /opt/ros/jazzy/setup.bash
source /workspace/install/setup.bash
exec "$@"
