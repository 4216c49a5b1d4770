# SPDX-License-Identifier: Apache-2.0
"""What people look at after a run: one page without network access, the same data as files, and a live viewer."""
