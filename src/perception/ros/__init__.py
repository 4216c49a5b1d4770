# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes and what they stand on: the only layer that knows rclpy and messages."""
